// SPDX-License-Identifier: Apache-2.0
// Values of some units (neurons, blocks) of one layer, by their numbers in it.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <span>
#include <vector>

#include "tune/sparse/compact_index.h"

namespace fettle::tune {

// index and values always agree in n; with n = 0 both are defined and empty.
struct UnitRows {
  at::Tensor index;   // [n] int64 on the CPU, ascending
  at::Tensor values;  // [p, n, w] fp32

  std::int64_t size() const { return index.size(0); }
};

UnitRows no_units(std::int64_t planes, std::int64_t width);

// UnitRows as they are kept: each unit's number takes a byte or so.
struct CompactRows {
  CompactIndex index;
  at::Tensor values;  // [p, n, w] fp32

  std::int64_t size() const { return index.size(); }
  UnitRows decode() const { return {index.decode(), values}; }
};

std::span<const std::int64_t> entries(const at::Tensor& index);

// Where an ascending index [n] crosses from one stretch to the next, given all
// stretches' first numbers and the end [k + 1]: [k + 1].
std::vector<std::int64_t> ranges_of(
    const at::Tensor& index, std::span<const std::int64_t> offsets);

// Positions of the common entries of two ascending indices: [k] in each.
struct CommonPositions {
  at::Tensor in_a;  // int64
  at::Tensor in_b;  // int64
};
CommonPositions common_positions(const at::Tensor& a, const at::Tensor& b);

// Entries of ascending `a` that ascending `b` lacks.
at::Tensor difference(const at::Tensor& a, const at::Tensor& b);

// The rows of both, which share no unit, in ascending order.
UnitRows merge_rows(const UnitRows& a, const UnitRows& b);

}  // namespace fettle::tune
