// SPDX-License-Identifier: Apache-2.0
#include "model/layers/expert_dispatch.h"

#include <limits>

#include "core/error.h"
#include "model/weights/device_transfer.h"

namespace fettle::model {
namespace {

// Counting sort: one pass to count, one to place.
Dispatch dispatch_on_cpu(const at::Tensor& selected, std::int64_t experts) {
  const std::int64_t pairs = selected.numel();
  const std::int64_t top_k = selected.size(1);
  const at::Tensor chosen = selected.contiguous();
  const auto* expert = chosen.const_data_ptr<std::int64_t>();
  Dispatch result;
  result.top_k = top_k;
  result.starts.assign(experts + 1, 0);
  for (std::int64_t i = 0; i < pairs; ++i) ++result.starts[expert[i] + 1];
  for (std::int64_t e = 0; e < experts; ++e) {
    result.starts[e + 1] += result.starts[e];
  }
  result.token = at::empty({pairs}, at::kLong);
  result.choice = at::empty({pairs}, at::kLong);
  result.position = at::empty_like(chosen);
  auto* token = result.token.data_ptr<std::int64_t>();
  auto* choice = result.choice.data_ptr<std::int64_t>();
  auto* position = result.position.data_ptr<std::int64_t>();
  std::vector<std::int64_t> next(
      result.starts.begin(), result.starts.end() - 1);
  for (std::int64_t i = 0; i < pairs; ++i) {
    const std::int64_t row = next[expert[i]]++;
    token[row] = i / top_k;
    choice[row] = i;
    position[i] = row;
  }
  return result;
}

Dispatch dispatch_on_device(const at::Tensor& selected, std::int64_t experts) {
  const at::Tensor flat = selected.reshape({-1});
  Dispatch result;
  result.top_k = selected.size(1);
  // A radix sort goes over the keys once a byte.
  const at::ScalarType key = experts <= 256 ? at::kByte : at::kShort;
  FETTLE_ASSERT(experts <= std::numeric_limits<std::int16_t>::max());
  const auto [sorted, choice] = flat.to(key).sort(/*stable=*/true, 0, false);
  result.choice = choice;
  result.token = result.choice.div(result.top_k, "floor");
  result.position =
      at::empty_like(flat)
          .scatter_(0, result.choice, at::arange(flat.size(0), flat.options()))
          .view_as(selected);
  // Not bincount, which has the host wait twice to know its own size.
  result.ends = at::searchsorted(
      sorted,
      at::arange(experts, flat.options()).to(key),
      /*out_int32=*/true,
      /*right=*/true);
  const at::Tensor ends = result.ends.to(at::kCPU);
  const auto* end = ends.const_data_ptr<std::int32_t>();
  result.starts.assign(1, 0);
  result.starts.insert(result.starts.end(), end, end + experts);
  return result;
}

// Sorts on the CPU, since the host waits in any case, and carries the result
// over in one copy: a token takes less than a sort takes on the card.
Dispatch dispatch_few(const at::Tensor& selected, std::int64_t experts) {
  Dispatch result = dispatch_on_cpu(selected.to(at::kCPU), experts);
  const std::int64_t pairs = selected.numel();
  const at::Tensor ends =
      at::tensor(at::ArrayRef<std::int64_t>(result.starts).slice(1), at::kLong);
  at::Tensor pinned = at::empty(
      {3 * pairs + experts}, host_options(at::kLong, selected.device()));
  at::cat_out(
      pinned, {result.token, result.choice, result.position.view({-1}), ends});
  const at::Tensor all = pinned.to(selected.device(), /*non_blocking=*/true);
  result.token = all.narrow(0, 0, pairs);
  result.choice = all.narrow(0, pairs, pairs);
  result.position = all.narrow(0, 2 * pairs, pairs).view_as(selected);
  result.ends = all.narrow(0, 3 * pairs, experts).to(at::kInt);
  return result;
}

}  // namespace

Dispatch dispatch(const at::Tensor& selected, std::int64_t experts) {
  const at::NoGradGuard no_grad;
  if (selected.is_cpu()) return dispatch_on_cpu(selected, experts);
  constexpr std::int64_t few = 64;
  return selected.numel() <= few ? dispatch_few(selected, experts)
                                 : dispatch_on_device(selected, experts);
}

}  // namespace fettle::model
