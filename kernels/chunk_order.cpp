// SPDX-License-Identifier: Apache-2.0
#include "kernels/chunk_order.h"

#include <algorithm>
#include <numeric>

namespace fettle::kernels {
namespace {

at::Tensor on_device(
    const std::vector<std::int64_t>& values, at::Device device) {
  return at::tensor(values, at::TensorOptions().dtype(at::kLong)).to(device);
}

}  // namespace

ChunkOrder::ChunkOrder(
    const std::vector<std::int64_t>& starts,
    std::int64_t chunk,
    at::Device device)
    : chunk_(chunk) {
  const auto length = [&](std::int64_t s) { return starts[s + 1] - starts[s]; };
  std::vector<std::int64_t> order(starts.size() - 1);
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](std::int64_t s) { return length(s) == 0; });
  std::ranges::stable_sort(
      order, [&](auto a, auto b) { return length(a) > length(b); });
  const std::int64_t tokens = starts.back();
  std::vector<std::int64_t> token, slot(tokens);
  std::size_t alive = order.size();
  for (std::int64_t step = 0; alive > 0; ++step) {
    first_.push_back(static_cast<std::int64_t>(token.size()) / chunk);
    for (std::size_t i = 0; i < alive; ++i) {
      const std::int64_t from = step * chunk;
      for (std::int64_t r = from; r < from + chunk; ++r) {
        const bool inside = r < length(order[i]);
        const std::int64_t n = inside ? starts[order[i]] + r : tokens;
        if (inside) slot[n] = static_cast<std::int64_t>(token.size());
        token.push_back(n);
      }
    }
    while (alive > 0 && length(order[alive - 1]) <= (step + 1) * chunk) --alive;
  }
  first_.push_back(static_cast<std::int64_t>(token.size()) / chunk);
  token_ = on_device(token, device);
  slot_ = on_device(slot, device);
  sequences_ = on_device(order, device);
}

at::Tensor ChunkOrder::gather(const at::Tensor& tokens) const {
  std::vector<std::int64_t> zero(tokens.sizes().vec());
  zero[0] = 1;
  return at::cat({tokens, at::zeros(zero, tokens.options())}, 0)
      .index_select(0, token_)
      .unflatten(0, {-1, chunk_});
}

at::Tensor ChunkOrder::scatter(const at::Tensor& chunks) const {
  return chunks.flatten(0, 1).index_select(0, slot_);
}

}  // namespace fettle::kernels
