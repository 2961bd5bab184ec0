// SPDX-License-Identifier: Apache-2.0
#include "model/layers/padded_sequences.h"

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>

#include "model/layers/differentiable.h"
#include "model/weights/device_transfer.h"

namespace fettle::model {
namespace {

// Sequences by the power of two that they fill, each class in their order.
std::map<int, std::vector<std::size_t>> by_length(
    const std::vector<std::int64_t>& starts) {
  std::map<int, std::vector<std::size_t>> classes;
  for (std::size_t i = 0; i + 1 < starts.size(); ++i) {
    const auto length = static_cast<std::uint64_t>(starts[i + 1] - starts[i]);
    if (length > 0) classes[std::bit_width(length - 1)].push_back(i);
  }
  return classes;
}

at::Tensor carried(const std::vector<std::int64_t>& values, at::Device device) {
  at::Tensor host =
      at::empty({std::ssize(values)}, host_options(at::kLong, device));
  std::ranges::copy(values, host.data_ptr<std::int64_t>());
  return host.to(device, /*non_blocking=*/true);
}

}  // namespace

PaddedSequences::PaddedSequences(
    const std::vector<std::int64_t>& starts, at::Device device) {
  std::vector<std::int64_t> token, from;
  std::vector<std::int64_t> row(static_cast<std::size_t>(starts.back()));
  for (const auto& [power, sequences] : by_length(starts)) {
    std::int64_t longest = 0;
    for (const std::size_t i : sequences) {
      longest = std::max(longest, starts[i + 1] - starts[i]);
    }
    rectangles_.push_back({std::ssize(token), std::ssize(sequences), longest});
    for (const std::size_t i : sequences) {
      const std::int64_t begin = std::ssize(token);
      const std::int64_t length = starts[i + 1] - starts[i];
      token.resize(static_cast<std::size_t>(begin + longest), -1);
      from.resize(token.size(), starts[i + 1] - 1);
      std::iota(
          token.begin() + begin, token.begin() + begin + length, starts[i]);
      std::iota(row.begin() + starts[i], row.begin() + starts[i + 1], begin);
    }
  }
  for (std::size_t p = 0; p < token.size(); ++p) {
    if (token[p] >= 0) from[p] = token[p];
  }
  token_ = carried(token, device);
  from_ = carried(from, device);
  row_ = carried(row, device);
}

at::Tensor PaddedSequences::pad(const at::Tensor& packed) const {
  return moved_rows(packed, from_, row_);
}

at::Tensor PaddedSequences::unpad(const at::Tensor& padded) const {
  return moved_rows(padded, row_, token_);
}

}  // namespace fettle::model
