// SPDX-License-Identifier: Apache-2.0
#include "kernels/causal_conv1d.h"

#include <algorithm>

#include "kernels/cpu/mixers.h"
#include "kernels/dispatch.h"
#include "kernels/sequences.h"

namespace fettle::kernels {
namespace {

// Depends on the number of tokens only, so that sums over them have the same
// bits on any number of threads.
std::int64_t token_blocks(std::int64_t tokens) {
  return std::clamp<std::int64_t>(tokens / 64, 1, 128);
}

bool is_matrix_of_rows(const at::Tensor& t) {
  return t.dim() == 2 && has_rows(t);
}

// Checked sizes and inputs. `starts` must outlive them.
ConvolutionArgs convolution_args(
    const at::Tensor& x,
    const ConvolutionWeights& weights,
    const ConvolutionOptions& options,
    const at::Tensor& starts) {
  FETTLE_ASSERT(is_matrix_of_rows(x) && weights.weight.dim() == 2);
  const std::int64_t channels = x.size(1), taps = weights.weight.size(1);
  FETTLE_ASSERT(taps >= 2 && taps <= kMostTaps);
  FETTLE_ASSERT(matches(weights.weight, {channels, taps}, x));
  FETTLE_ASSERT(
      !weights.bias.defined() || matches(weights.bias, {channels}, x));
  const bool bias = weights.bias.defined();
  return {
      .dtype = dtype_of(x),
      .silu = options.silu,
      .tokens = x.size(0),
      .channels = channels,
      .taps = taps,
      .sequences = starts.numel() - 1,
      .starts = starts.const_data_ptr<std::int64_t>(),
      .x = rows_of(x),
      .weight = weights.weight.const_data_ptr(),
      .bias = bias ? weights.bias.const_data_ptr() : nullptr,
      .y = nullptr,
      .state = nullptr};
}

}  // namespace

at::Tensor causal_conv1d(
    const at::Tensor& x,
    const ConvolutionWeights& weights,
    const ConvolutionOptions& options) {
  check_starts(options.starts, x.size(0));
  at::Tensor y = at::empty(x.sizes(), x.options());
  if (x.size(0) == 0) return y;
  const at::Tensor starts = starts_on(x.device(), options.starts);
  ConvolutionArgs args = convolution_args(x, weights, options, starts);
  args.y = y.data_ptr();
  if (options.state.defined()) {
    FETTLE_ASSERT(matches(
        options.state, {args.sequences, args.taps - 1, args.channels}, x));
    args.state = options.state.data_ptr();
  }
  dispatch(
      x.device(),
      {"causal_conv1d", cpu::causal_conv1d, &Launchers::causal_conv1d},
      args);
  return y;
}

ConvolutionGradients causal_conv1d_backward(
    const at::Tensor& dy,
    const at::Tensor& x,
    const ConvolutionWeights& weights,
    const ConvolutionOptions& options) {
  check_starts(options.starts, x.size(0));
  FETTLE_ASSERT(!options.state.defined());
  FETTLE_ASSERT(dy.sizes() == x.sizes() && dy.dtype() == x.dtype());
  FETTLE_ASSERT(dy.device() == x.device());
  const auto fp32 = x.options().dtype(at::kFloat);
  const std::int64_t channels = weights.weight.size(0);
  const std::int64_t taps = weights.weight.size(1);
  const at::Tensor sums = at::zeros({taps + 1, channels}, fp32);
  ConvolutionGradients result{at::empty(x.sizes(), x.options()), {}, {}};
  if (x.size(0) > 0) {
    FETTLE_ASSERT(is_matrix_of_rows(dy));
    const at::Tensor starts = starts_on(x.device(), options.starts);
    const std::int64_t blocks = token_blocks(x.size(0));
    const at::Tensor partial = at::empty({blocks, taps + 1, channels}, fp32);
    const ConvolutionBackwardArgs args{
        .forward = convolution_args(x, weights, options, starts),
        .dy = rows_of(dy),
        .dx = result.dx.data_ptr(),
        .dweight = sums.data_ptr<float>(),
        .partial = partial.data_ptr<float>(),
        .blocks = blocks};
    dispatch(
        x.device(),
        {"causal_conv1d_backward",
         cpu::causal_conv1d_backward,
         &Launchers::causal_conv1d_backward},
        args);
  }
  result.dweight = sums.narrow(0, 0, taps).t().contiguous();
  if (weights.bias.defined()) result.dbias = sums[taps];
  return result;
}

}  // namespace fettle::kernels
