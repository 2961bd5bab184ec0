// SPDX-License-Identifier: Apache-2.0
#include "kernels/decoded_attention.h"

#include <vector>

#include "core/error.h"
#include "kernels/cpu/decoding.h"
#include "kernels/dispatch.h"

namespace fettle::kernels {
namespace {

bool is_rows(const at::Tensor& t, std::int64_t rows, std::int64_t cols) {
  return t.is_cpu() && t.scalar_type() == at::kFloat && t.is_contiguous() &&
         t.dim() == 2 && t.size(0) == rows && t.size(1) == cols;
}

const float* given(
    const at::Tensor& t, at::IntArrayRef sizes, const at::Tensor& like) {
  if (!t.defined()) return nullptr;
  FETTLE_ASSERT(matches(t, sizes, like));
  return t.const_data_ptr<float>();
}

}  // namespace

at::Tensor decoded_attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    std::span<const GrowingCache> caches,
    const DecodedAttentionOptions& options) {
  FETTLE_ASSERT(!caches.empty() && options.window >= 0);
  const at::Tensor& key = caches.front().key;
  const std::int64_t count = std::ssize(caches), size = key.size(2);
  const std::int64_t kv_heads = key.size(1);
  const std::int64_t value_size = caches.front().value.size(2);
  FETTLE_ASSERT(size > 0 && kv_heads > 0 && q.dim() == 2);
  const std::int64_t heads = q.size(1) / size;
  FETTLE_ASSERT(heads % kv_heads == 0 && is_rows(q, count, heads * size));
  FETTLE_ASSERT(is_rows(k, count, kv_heads * size));
  FETTLE_ASSERT(is_rows(v, count, kv_heads * value_size));
  std::vector<GrowingCacheArgs> sequences;
  for (const auto& [keys, values, tokens] : caches) {
    FETTLE_ASSERT(matches(keys, {keys.size(0), kv_heads, size}, q));
    FETTLE_ASSERT(matches(values, {keys.size(0), kv_heads, value_size}, q));
    FETTLE_ASSERT(tokens >= 0 && tokens < keys.size(0));
    sequences.push_back(
        {keys.mutable_data_ptr<float>(),
         values.mutable_data_ptr<float>(),
         tokens});
  }
  const std::int64_t half = options.cos.defined() ? options.cos.size(1) : 0;
  FETTLE_ASSERT(2 * half <= size);
  at::Tensor turned = at::empty({count, heads * size}, q.options());
  at::Tensor out = at::empty({count, heads * value_size}, q.options());
  cpu::decoded_attention(
      {.sequences = sequences.data(),
       .q_in = q.const_data_ptr<float>(),
       .k = k.const_data_ptr<float>(),
       .v = v.const_data_ptr<float>(),
       .q_norm = given(options.q_norm, {size}, q),
       .k_norm = given(options.k_norm, {size}, q),
       .eps = static_cast<float>(options.eps),
       .offset = static_cast<float>(options.offset),
       .cos = given(options.cos, {count, half}, q),
       .sin = given(options.sin, {count, half}, q),
       .rotated = 2 * half,
       .pairing = options.pairing,
       .q_out = turned.mutable_data_ptr<float>(),
       .attention = {
           .sequences = nullptr,
           .count = count,
           .heads = heads,
           .kv_heads = kv_heads,
           .key_size = size,
           .value_size = value_size,
           .window = options.window,
           .scale = static_cast<float>(options.scale),
           .q = turned.const_data_ptr<float>(),
           .sinks = given(options.sinks, {heads}, q),
           .out = out.mutable_data_ptr<float>()}});
  return out;
}

}  // namespace fettle::kernels
