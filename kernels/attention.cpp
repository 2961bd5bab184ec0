// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention.h"

#include "kernels/cpu/attention.h"
#include "kernels/dispatch.h"
#include "kernels/sequences.h"

namespace fettle::kernels {
namespace {

// Checked sizes and inputs; the outputs are the caller's to fill in.
AttentionArgs arguments(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const AttentionOptions& options) {
  FETTLE_ASSERT(q.is_cpu() && q.scalar_type() == at::kFloat);
  FETTLE_ASSERT(q.dim() == 3 && k.dim() == 3 && v.dim() == 3);
  FETTLE_ASSERT(k.size(1) > 0 && q.size(1) % k.size(1) == 0);
  FETTLE_ASSERT(q.is_contiguous() && options.window >= 0);
  FETTLE_ASSERT(matches(k, {q.size(0), k.size(1), q.size(2)}, q));
  FETTLE_ASSERT(matches(v, {q.size(0), k.size(1), v.size(2)}, q));
  check_starts(options.starts, q.size(0));
  AttentionArgs args{};
  args.sequences = static_cast<std::int64_t>(options.starts.size()) - 1;
  args.starts = options.starts.data();
  args.heads = q.size(1);
  args.kv_heads = k.size(1);
  args.key_size = q.size(2);
  args.value_size = v.size(2);
  args.window = options.window;
  args.scale = static_cast<float>(options.scale);
  args.q = q.const_data_ptr<float>();
  args.k = k.const_data_ptr<float>();
  args.v = v.const_data_ptr<float>();
  return args;
}

}  // namespace

Attention attention(
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const AttentionOptions& options) {
  AttentionArgs args = arguments(q, k, v, options);
  Attention result{
      at::empty({q.size(0), q.size(1), v.size(2)}, q.options()),
      at::empty({q.size(0), q.size(1)}, q.options())};
  args.out = result.out.data_ptr<float>();
  args.lse = result.lse.data_ptr<float>();
  cpu::attention(args);
  return result;
}

AttentionGradients attention_backward(
    const at::Tensor& d_out,
    const Attention& forward,
    const at::Tensor& q,
    const at::Tensor& k,
    const at::Tensor& v,
    const AttentionOptions& options) {
  AttentionArgs args = arguments(q, k, v, options);
  FETTLE_ASSERT(matches(forward.out, {q.size(0), q.size(1), v.size(2)}, q));
  FETTLE_ASSERT(matches(forward.lse, {q.size(0), q.size(1)}, q));
  FETTLE_ASSERT(matches(d_out, forward.out.sizes(), q));
  AttentionGradients result{
      at::empty_like(q), at::empty_like(k), at::empty_like(v)};
  args.out = forward.out.data_ptr<float>();
  args.lse = forward.lse.data_ptr<float>();
  args.d_out = d_out.const_data_ptr<float>();
  args.dq = result.dq.data_ptr<float>();
  args.dk = result.dk.data_ptr<float>();
  args.dv = result.dv.data_ptr<float>();
  cpu::attention_backward(args);
  return result;
}

}  // namespace fettle::kernels
