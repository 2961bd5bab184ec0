// SPDX-License-Identifier: Apache-2.0
// Values of some neurons of one layer, and how they enter its expert bank. A
// neuron is numbered as its row of ExpertBank::down, so that all experts of a
// layer share one numbering whatever their widths.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "model/layer_weights.h"
#include "model/model_config.h"
#include "model/model_reader.h"

namespace fettle::tune {

// index and values always agree in n; with n = 0 both are defined and empty.
struct NeuronRows {
  at::Tensor index;   // [n] int64 on the CPU, ascending
  at::Tensor values;  // [3, n, H] fp32: gate, up and down rows

  std::int64_t size() const { return index.size(0); }
};

NeuronRows no_rows(std::int64_t hidden_size);

// First neuron of every expert, and the end: [E + 1].
std::vector<std::int64_t> expert_offsets(const model::LayerConfig& layer);

// Where an ascending index [n] crosses from one expert to the next: [E + 1].
std::vector<std::int64_t> expert_ranges(
    const at::Tensor& index, std::span<const std::int64_t> offsets);

// Rows of the bank's matrices that neurons stand in.
struct BankRows {
  at::Tensor gate;  // [n] int64, rows of gate_up
  at::Tensor up;    // [n] int64, rows of gate_up
  at::Tensor down;  // [n] int64, rows of down

  BankRows to(at::Device device) const;
};

BankRows bank_rows(
    const at::Tensor& index, std::span<const std::int64_t> offsets);

// Puts values [3, n, H] in place of these rows, in the bank's type.
void write_rows(
    const BankRows& rows, const at::Tensor& values, model::ExpertBank& bank);

// The model's own values of neurons `index` of `layer`, fp32 on the CPU. Reads
// one tensor at a time, and only those of experts that have such a neuron.
NeuronRows read_rows(
    const model::ModelReader& reader,
    std::int64_t layer,
    const at::Tensor& index);

// Positions of the common entries of two ascending indices: [k] in each.
struct CommonPositions {
  at::Tensor in_a;  // int64
  at::Tensor in_b;  // int64
};
CommonPositions common_positions(const at::Tensor& a, const at::Tensor& b);

// Entries of ascending `a` that ascending `b` lacks.
at::Tensor difference(const at::Tensor& a, const at::Tensor& b);

// The rows of both, which share no neuron, in ascending order.
NeuronRows merge_rows(const NeuronRows& a, const NeuronRows& b);

}  // namespace fettle::tune
