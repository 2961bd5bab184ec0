// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/unit_rows.h"

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace fettle::tune {

namespace {

at::Tensor index_tensor(const std::vector<std::int64_t>& values) {
  return at::tensor(values, at::kLong);
}

}  // namespace

UnitRows no_units(std::int64_t planes, std::int64_t width) {
  return {at::empty({0}, at::kLong), at::empty({planes, 0, width}, at::kFloat)};
}

std::span<const std::int64_t> entries(const at::Tensor& index) {
  return {
      index.const_data_ptr<std::int64_t>(),
      static_cast<std::size_t>(index.size(0))};
}

std::vector<std::int64_t> ranges_of(
    const at::Tensor& index, std::span<const std::int64_t> offsets) {
  const auto all = entries(index);
  std::vector<std::int64_t> ranges;
  for (const std::int64_t offset : offsets) {
    ranges.push_back(
        std::lower_bound(all.begin(), all.end(), offset) - all.begin());
  }
  return ranges;
}

CommonPositions common_positions(const at::Tensor& a, const at::Tensor& b) {
  const auto left = entries(a);
  const auto right = entries(b);
  std::vector<std::int64_t> in_a;
  std::vector<std::int64_t> in_b;
  for (std::size_t i = 0, j = 0; i < left.size() && j < right.size();) {
    if (left[i] == right[j]) {
      in_a.push_back(static_cast<std::int64_t>(i));
      in_b.push_back(static_cast<std::int64_t>(j));
    }
    const bool step_a = left[i] <= right[j];
    const bool step_b = right[j] <= left[i];
    i += step_a ? 1 : 0;
    j += step_b ? 1 : 0;
  }
  return {index_tensor(in_a), index_tensor(in_b)};
}

at::Tensor difference(const at::Tensor& a, const at::Tensor& b) {
  const auto left = entries(a);
  const auto right = entries(b);
  std::vector<std::int64_t> result;
  std::set_difference(
      left.begin(),
      left.end(),
      right.begin(),
      right.end(),
      std::back_inserter(result));
  return index_tensor(result);
}

UnitRows merge_rows(const UnitRows& a, const UnitRows& b) {
  if (b.size() == 0) return a;
  const auto [index, order] = at::cat({a.index, b.index}).sort();
  FETTLE_ASSERT(
      index.size(0) < 2 || index.diff().min().item<std::int64_t>() > 0);
  return {
      index,
      at::cat({a.values, b.values}, 1)
          .index_select(1, order.to(a.values.device()))};
}

}  // namespace fettle::tune
