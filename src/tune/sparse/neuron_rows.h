// SPDX-License-Identifier: Apache-2.0
// Neurons as units: a neuron is numbered as its row of ExpertBank::down, so
// that all experts of a layer share one numbering whatever their widths. Its
// values are planes [P + 1, n, H]: its gate, up and down rows, or up and down
// alone.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "model/family/model_config.h"
#include "model/weights/layer_weights.h"
#include "model/weights/model_reader.h"
#include "tune/sparse/unit_rows.h"

namespace fettle::tune {

// First neuron of every expert, and the end: [E + 1].
std::vector<std::int64_t> expert_offsets(const model::LayerConfig& layer);

// The rows of the bank's matrices that hold some neurons.
struct BankRows {
  std::vector<at::Tensor> inputs;  // P of [n] int64, rows of gate_up
  at::Tensor down;                 // [n] int64, rows of down

  BankRows to(at::Device device) const;
};

// How many planes a neuron has.
std::int64_t planes_of(const model::ModelConfig& config);

// `inputs`: how many rows of gate_up a neuron has.
BankRows bank_rows(
    const at::Tensor& index,
    std::span<const std::int64_t> offsets,
    std::int64_t inputs);

// Writes values [P + 1, n, H] over `rows`, in the bank's type.
void write_rows(
    const BankRows& rows, const at::Tensor& values, model::ExpertBank& bank);

// The model's own values of neurons `index` of `layer`, fp32 on the CPU. Reads
// one tensor at a time, and only those of experts that have such a neuron.
UnitRows read_rows(
    const model::ModelReader& reader,
    std::int64_t layer,
    const at::Tensor& index);

}  // namespace fettle::tune
