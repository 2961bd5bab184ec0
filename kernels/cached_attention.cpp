// SPDX-License-Identifier: Apache-2.0
#include "kernels/cached_attention.h"

#include "core/error.h"
#include "kernels/cpu/decoding.h"
#include "kernels/dispatch.h"
#include "kernels/sequences.h"

namespace fettle::kernels {

at::Tensor cached_attention(
    const at::Tensor& q,
    std::span<const CachedTokens> caches,
    const CachedAttentionOptions& options) {
  FETTLE_ASSERT(q.is_cpu() && q.scalar_type() == at::kFloat);
  FETTLE_ASSERT(q.dim() == 3 && q.is_contiguous() && options.window >= 0);
  FETTLE_ASSERT(!caches.empty());
  FETTLE_ASSERT(options.starts.size() == caches.size() + 1);
  check_starts(options.starts, q.size(0));
  const at::Tensor& first = caches.front().key;
  const std::int64_t kv_heads = first.size(1);
  const std::int64_t value_size = caches.front().value.size(2);
  FETTLE_ASSERT(kv_heads > 0 && q.size(1) % kv_heads == 0);
  std::vector<CachedSequenceArgs> sequences;
  for (std::size_t b = 0; b < caches.size(); ++b) {
    const auto& [key, value, count] = caches[b];
    const std::int64_t begin = options.starts[b];
    const std::int64_t queries = options.starts[b + 1] - begin;
    FETTLE_ASSERT(matches(key, {key.size(0), kv_heads, q.size(2)}, q));
    FETTLE_ASSERT(matches(value, {key.size(0), kv_heads, value_size}, q));
    FETTLE_ASSERT(queries <= count && count <= key.size(0));
    sequences.push_back(
        {begin,
         queries,
         count,
         key.const_data_ptr<float>(),
         value.const_data_ptr<float>()});
  }
  at::Tensor sinks = options.sinks;
  if (sinks.defined()) {
    sinks = sinks.to(at::kFloat).contiguous();
    FETTLE_ASSERT(matches(sinks, {q.size(1)}, q));
  }
  at::Tensor out = at::empty({q.size(0), q.size(1), value_size}, q.options());
  cpu::cached_attention(
      {.sequences = sequences.data(),
       .count = static_cast<std::int64_t>(sequences.size()),
       .heads = q.size(1),
       .kv_heads = kv_heads,
       .key_size = q.size(2),
       .value_size = value_size,
       .window = options.window,
       .scale = static_cast<float>(options.scale),
       .q = q.const_data_ptr<float>(),
       .sinks = sinks.defined() ? sinks.const_data_ptr<float>() : nullptr,
       .out = out.data_ptr<float>()});
  return out;
}

}  // namespace fettle::kernels
