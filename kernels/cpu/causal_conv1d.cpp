// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/mixers.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/causal_conv1d.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/convolution-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

template <class T>
void convolve(
    const ConvolutionArgs& a,
    const float* weights,
    std::int64_t begin,
    std::int64_t end) {
  Sequences at(a, begin);
  for (std::int64_t n = begin; n < end; ++n) {
    at.go_to(n);
    const Window<T> window(a, at, n);
    T* y = static_cast<T*>(a.y) + n * a.channels;
    for_row(a.channels, [&](std::size_t c, auto part) HWY_ATTR {
      const V z = convolved(a, window, weights, c, part);
      store(a.silu ? hn::Mul(z, sigmoid(z)) : z, y + c, part);
    });
  }
}

void ConvolveTokens(
    const ConvolutionArgs& a,
    const float* weights,
    std::int64_t begin,
    std::int64_t end) {
  a.dtype == DType::kFloat32 ? convolve<float>(a, weights, begin, end)
                             : convolve<Bf16>(a, weights, begin, end);
}

// The weights of every token's taps, [W + 1, C].
void TurnWeights(const ConvolutionArgs& a, float* to) {
  a.dtype == DType::kFloat32 ? turn_weights<float>(a, to)
                             : turn_weights<Bf16>(a, to);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {
namespace {

// Leaves the last W - 1 inputs of each sequence in its state.
void keep_last(const ConvolutionArgs& a) {
  const std::int64_t rows = a.taps - 1;
  const std::int64_t value = a.dtype == DType::kFloat32 ? 4 : 2;
  const std::int64_t bytes = a.channels * value;
  const auto* x = static_cast<const char*>(a.x.data);
  for (std::int64_t s = 0; s < a.sequences; ++s) {
    auto* state = static_cast<char*>(a.state) + s * rows * bytes;
    const std::int64_t end = a.starts[s + 1];
    const std::int64_t fresh = std::min(rows, end - a.starts[s]);
    std::memmove(state, state + fresh * bytes, (rows - fresh) * bytes);
    for (std::int64_t r = 0; r < fresh; ++r) {
      const std::int64_t from = (end - fresh + r) * a.x.token_stride * value;
      std::memcpy(state + (rows - fresh + r) * bytes, x + from, bytes);
    }
  }
}

}  // namespace

HWY_EXPORT(ConvolveTokens);
HWY_EXPORT(TurnWeights);

void cpu::causal_conv1d(const ConvolutionArgs& args) {
  std::vector<float> weights((args.taps + 1) * args.channels);
  HWY_DYNAMIC_DISPATCH(TurnWeights)(args, weights.data());
  const std::int64_t work = args.channels * (args.taps + 1);
  parallel_rows(args.tokens, work, [&](auto begin, auto end) {
    HWY_DYNAMIC_DISPATCH(ConvolveTokens)(args, weights.data(), begin, end);
  });
  if (args.state != nullptr) keep_last(args);
}

}  // namespace fettle::kernels
#endif
