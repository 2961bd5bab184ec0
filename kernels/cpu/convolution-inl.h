// SPDX-License-Identifier: Apache-2.0
// What a short causal convolution and its backward pass share: the rows that a
// token sees, and its sum.
#if defined(FETTLE_KERNELS_CPU_CONVOLUTION_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_CONVOLUTION_INL_H_
#undef FETTLE_KERNELS_CPU_CONVOLUTION_INL_H_
#else
#define FETTLE_KERNELS_CPU_CONVOLUTION_INL_H_
#endif

#include "kernels/cpu/activation-inl.h"
#include "kernels/mixer_args.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Walks through tokens, and knows where the sequence of each began.
class Sequences {
 public:
  Sequences(const ConvolutionArgs& a, std::int64_t token) : starts_(a.starts) {
    std::int64_t low = 0, high = a.sequences;
    while (high - low > 1) {
      const std::int64_t middle = (low + high) / 2;
      (starts_[middle] <= token ? low : high) = middle;
    }
    here_ = low;
  }
  void go_to(std::int64_t token) {
    while (starts_[here_ + 1] <= token) ++here_;
  }
  std::int64_t index() const { return here_; }
  std::int64_t first() const { return starts_[here_]; }
  std::int64_t end() const { return starts_[here_ + 1]; }

 private:
  const std::int64_t* starts_;
  std::int64_t here_;
};

// The rows of inputs that a token's sum is over, those of taps `first` to W.
template <class T>
struct Window {
  const T* row[kMostTaps];
  std::int64_t first = 0;

  Window(const ConvolutionArgs& a, const Sequences& at, std::int64_t token) {
    const T* x = static_cast<const T*>(a.x.data);
    const T* state = static_cast<const T*>(a.state);
    for (std::int64_t tap = 0; tap < a.taps; ++tap) {
      const std::int64_t from = token - (a.taps - 1 - tap);
      const std::int64_t before = at.first() - from;  // of the start
      if (before <= 0) {
        row[tap] = x + from * a.x.token_stride;
      } else if (state != nullptr) {
        const std::int64_t rows = a.taps - 1;
        row[tap] = state + (at.index() * rows + rows - before) * a.channels;
      } else {
        first = tap + 1;
      }
    }
  }
};

HWY_INLINE float wide(float v) { return v; }
HWY_INLINE float wide(Bf16 v) {
  const std::uint32_t bits = std::uint32_t{v} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

// The convolution's weights as [W + 1, C], the bias last.
template <class T>
void turn_weights(const ConvolutionArgs& a, float* to) {
  const std::int64_t channels = a.channels, taps = a.taps;
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  for (std::int64_t c = 0; c < channels; ++c) {
    for (std::int64_t tap = 0; tap < taps; ++tap) {
      to[tap * channels + c] = wide(weight[c * taps + tap]);
    }
  }
  float* const last = to + taps * channels;
  for (std::int64_t c = 0; c < channels; ++c) {
    last[c] = bias == nullptr ? 0.0f : wide(bias[c]);
  }
}

// What goes into the activation, of the channels at c.
template <class T, class P>
HWY_INLINE V convolved(
    const ConvolutionArgs& a,
    const Window<T>& window,
    const float* weights,
    std::size_t c,
    P part) {
  V sum = load(weights + a.taps * a.channels + c, part);
  for (std::int64_t tap = window.first; tap < a.taps; ++tap) {
    const V w = load(weights + tap * a.channels + c, part);
    sum = hn::MulAdd(w, load(window.row[tap] + c, part), sum);
  }
  return sum;
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
