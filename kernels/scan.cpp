// SPDX-License-Identifier: Apache-2.0
#include "kernels/scan.h"

#include "kernels/cpu/mixers.h"
#include "kernels/dispatch.h"
#include "kernels/scan_products.h"
#include "kernels/sequences.h"

namespace fettle::kernels {
namespace {

// Heads that one task takes, at most: more of them would wait for each other
// where few key heads are many heads' (Mamba-2 may have one for all).
constexpr std::int64_t kHeadsOfTask = 8;

bool is_heads(const at::Tensor& t, at::IntArrayRef sizes) {
  return t.sizes() == sizes && (t.numel() == 0 || has_rows(t));
}

void check_scan(const ScanInputs& in, const ScanOptions& options) {
  FETTLE_ASSERT(in.q.dim() == 3 && in.v.dim() == 3);
  const std::int64_t tokens = in.q.size(0), heads = in.v.size(1);
  FETTLE_ASSERT(in.q.size(1) > 0 && heads % in.q.size(1) == 0);
  FETTLE_ASSERT(heads > 0 && in.q.size(2) > 0 && in.v.size(2) > 0);
  FETTLE_ASSERT(is_heads(in.q, in.q.sizes()) && is_heads(in.k, in.q.sizes()));
  FETTLE_ASSERT(is_heads(in.v, {tokens, heads, in.v.size(2)}));
  for (const at::Tensor& t : {in.q, in.k, in.v}) {
    FETTLE_ASSERT(t.device() == in.q.device() && t.dtype() == at::kFloat);
  }
  FETTLE_ASSERT(matches(in.g, {tokens, heads}, in.q));
  FETTLE_ASSERT(matches(in.write, {tokens, heads}, in.q));
  FETTLE_ASSERT(!in.skip.defined() || matches(in.skip, {heads}, in.q));
  check_starts(options.starts, tokens);
}

// Whether a device has a kernel for it: for a few tokens behind a state.
bool goes_by_steps(const ScanInputs& in, const ScanOptions& options) {
  const std::vector<std::int64_t>& starts = options.starts;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    if (starts[s + 1] - starts[s] > kMostSteps) return false;
  }
  return options.state.defined() && in.q.size(2) <= kMostStepKeys;
}

ScanArgs scan_args(const ScanInputs& in, const ScanOptions& options) {
  const std::int64_t of_key = in.v.size(1) / in.q.size(1);
  return {
      .delta = options.delta,
      .sequences = static_cast<std::int64_t>(options.starts.size()) - 1,
      .starts = options.starts.data(),
      .key_heads = in.q.size(1),
      .heads = in.v.size(1),
      .key_size = in.q.size(2),
      .value_size = in.v.size(2),
      .parts = (of_key + kHeadsOfTask - 1) / kHeadsOfTask,
      .q = rows_of(in.q),
      .k = rows_of(in.k),
      .v = rows_of(in.v),
      .g = in.g.const_data_ptr<float>(),
      .write = in.write.const_data_ptr<float>(),
      .skip = in.skip.defined() ? in.skip.const_data_ptr<float>() : nullptr,
      .eps = static_cast<float>(options.eps),
      .scale = static_cast<float>(options.scale),
      .state = nullptr,
      .out = nullptr};
}

void backward_on_cpu(
    const at::Tensor& d_out,
    const ScanInputs& in,
    const ScanOptions& options,
    ScanGradients& result) {
  const ScanArgs forward = scan_args(in, options);
  const auto partial = [&](at::Tensor& whole) {
    std::vector<std::int64_t> sizes = whole.sizes().vec();
    sizes.insert(sizes.begin(), forward.parts);
    return forward.parts == 1 ? whole : at::empty(sizes, whole.options());
  };
  const at::Tensor dq = partial(result.dq), dk = partial(result.dk);
  at::Tensor dskip;
  if (in.skip.defined()) {
    dskip = at::empty({forward.sequences, forward.heads}, in.skip.options());
  }
  cpu::scan_backward(
      {.forward = forward,
       .d_out = rows_of(d_out),
       .dq = dq.data_ptr<float>(),
       .dk = dk.data_ptr<float>(),
       .dv = result.dv.data_ptr<float>(),
       .dg = result.dg.data_ptr<float>(),
       .dwrite = result.dwrite.data_ptr<float>(),
       .dskip = dskip.defined() ? dskip.data_ptr<float>() : nullptr});
  if (forward.parts > 1) {
    result.dq = dq.sum(0);
    result.dk = dk.sum(0);
  }
  if (dskip.defined()) result.dskip = dskip.sum(0);
}

}  // namespace

at::Tensor scan(const ScanInputs& inputs, const ScanOptions& options) {
  check_scan(inputs, options);
  const at::Tensor& v = inputs.v;
  if (options.state.defined()) {
    const auto sequences = static_cast<std::int64_t>(options.starts.size()) - 1;
    const std::int64_t key_size = inputs.q.size(2);
    FETTLE_ASSERT(
        matches(options.state, {sequences, v.size(1), key_size, v.size(2)}, v));
  }
  if (v.size(0) == 0) return at::empty(v.sizes(), v.options());
  if (!v.is_cpu() && !goes_by_steps(inputs, options)) {
    return scan_products(inputs, options);
  }
  at::Tensor out = at::empty(v.sizes(), v.options());
  const at::Tensor starts = starts_on(v.device(), options.starts);
  ScanArgs args = scan_args(inputs, options);
  args.starts = starts.const_data_ptr<std::int64_t>();
  args.out = out.data_ptr<float>();
  if (options.state.defined()) args.state = options.state.data_ptr<float>();
  dispatch(v.device(), {"scan", cpu::scan, &Launchers::scan_steps}, args);
  return out;
}

ScanGradients scan_backward(
    const at::Tensor& d_out,
    const ScanInputs& inputs,
    const ScanOptions& options) {
  check_scan(inputs, options);
  FETTLE_ASSERT(!options.state.defined());
  const at::Tensor& v = inputs.v;
  FETTLE_ASSERT(is_heads(d_out, v.sizes()) && d_out.dtype() == at::kFloat);
  FETTLE_ASSERT(d_out.device() == v.device());
  if (v.size(0) > 0 && !v.is_cpu()) {
    return scan_products_backward(d_out, inputs, options);
  }
  const auto like = [&](at::IntArrayRef sizes) {
    return at::empty(sizes, v.options());
  };
  ScanGradients result{
      like(inputs.q.sizes()),
      like(inputs.k.sizes()),
      like(v.sizes()),
      like(inputs.g.sizes()),
      like(inputs.g.sizes()),
      {}};
  if (inputs.skip.defined()) result.dskip = at::zeros_like(inputs.skip);
  if (v.size(0) > 0) backward_on_cpu(d_out, inputs, options, result);
  return result;
}

}  // namespace fettle::kernels
