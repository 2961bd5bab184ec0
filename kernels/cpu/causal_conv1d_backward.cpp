// SPDX-License-Identifier: Apache-2.0
#include <vector>

#include "kernels/cpu/mixers.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/causal_conv1d_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/convolution-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Tokens of a piece: their gradients in front of the activation stay in a
// core's caches.
constexpr std::int64_t kPieceTokens = 32;

// The channels from `first_channel` on of one block of tokens.
template <class T>
class BackwardBlock {
 public:
  BackwardBlock(
      const ConvolutionBackwardArgs& a,
      const float* weights,
      std::int64_t block,
      std::int64_t first_channel)
      : a_(a),
        f_(a.forward),
        weights_(weights),
        sums_(a.partial + block * (f_.taps + 1) * f_.channels),
        begin_(f_.tokens * block / a.blocks),
        end_(f_.tokens * (block + 1) / a.blocks),
        first_(first_channel),
        width_(
            f_.channels - first_ < kPieceChannels ? f_.channels - first_
                                                  : kPieceChannels) {}

  void run() {
    for (std::int64_t tap = 0; tap <= f_.taps; ++tap) {
      float* const sums = sums_ + tap * f_.channels + first_;
      for (std::int64_t c = 0; c < width_; ++c) sums[c] = 0.0f;
    }
    for (std::int64_t n = begin_; n < end_; n += kPieceTokens) {
      piece(n, end_ - n < kPieceTokens ? end_ : n + kPieceTokens);
    }
  }

 private:
  // Tokens behind the piece count for the gradients of its inputs, not for the
  // weights' sums: these are theirs.
  void piece(std::int64_t begin, std::int64_t end) {
    Sequences at(f_, begin);
    const std::int64_t seen = end + f_.taps - 1;
    for (std::int64_t n = begin; n < seen && n < f_.tokens; ++n) {
      at.go_to(n);
      const Window<T> window(f_, at, n);
      turn_activation(window, n, dz_[n - begin]);
      if (n < end) add_products(window, dz_[n - begin]);
    }
    Sequences of(f_, begin);
    for (std::int64_t n = begin; n < end; ++n) {
      of.go_to(n);
      write_gradient(n, of.end() - n, begin);
    }
  }

  void turn_activation(
      const Window<T>& window, std::int64_t n, float* dz) const {
    const V one = hn::Set(D(), 1.0f);
    const T* dy =
        static_cast<const T*>(a_.dy.data) + n * a_.dy.token_stride + first_;
    for_row(width_, [&](std::size_t c, auto part) HWY_ATTR {
      V d = load(dy + c, part);
      if (f_.silu) {
        const V z = convolved(f_, window, weights_, first_ + c, part);
        const V s = sigmoid(z);
        const V bend = hn::Mul(z, hn::Sub(one, s));
        d = hn::Mul(d, hn::MulAdd(s, bend, s));
      }
      store(d, dz + c, part);
    });
  }

  void add_products(const Window<T>& window, const float* dz) {
    for_row(width_, [&](std::size_t c, auto part) HWY_ATTR {
      const V d = load(dz + c, part);
      for (std::int64_t tap = window.first; tap < f_.taps; ++tap) {
        float* const sum = sums_ + tap * f_.channels + first_ + c;
        const V x = load(window.row[tap] + first_ + c, part);
        store(hn::MulAdd(d, x, load(sum, part)), sum, part);
      }
      float* const bias = sums_ + f_.taps * f_.channels + first_ + c;
      store(hn::Add(d, load(bias, part)), bias, part);
    });
  }

  // Writes token n's gradient; `left` tokens of its sequence see n, n included.
  void write_gradient(std::int64_t n, std::int64_t left, std::int64_t begin) {
    T* dx = static_cast<T*>(a_.dx) + n * f_.channels + first_;
    const std::int64_t seen_by = left < f_.taps ? left : f_.taps;
    for_row(width_, [&](std::size_t c, auto part) HWY_ATTR {
      V sum = hn::Zero(D());
      for (std::int64_t later = 0; later < seen_by; ++later) {
        const std::int64_t tap = f_.taps - 1 - later;
        const V w = load(weights_ + tap * f_.channels + first_ + c, part);
        const V d = load(dz_[n - begin + later] + c, part);
        sum = hn::MulAdd(w, d, sum);
      }
      store(sum, dx + c, part);
    });
  }

  const ConvolutionBackwardArgs& a_;
  const ConvolutionArgs& f_;
  const float* const weights_;
  float* const sums_;
  const std::int64_t begin_, end_, first_, width_;
  // The gradients in front of the activation.
  float dz_[kPieceTokens + kMostTaps - 1][kPieceChannels];
};

void TurnBlock(
    const ConvolutionBackwardArgs& a,
    const float* weights,
    std::int64_t block,
    std::int64_t first_channel) {
  if (a.forward.dtype == DType::kFloat32) {
    BackwardBlock<float>(a, weights, block, first_channel).run();
  } else {
    BackwardBlock<Bf16>(a, weights, block, first_channel).run();
  }
}

void WeightsForBackward(const ConvolutionArgs& a, float* to) {
  a.dtype == DType::kFloat32 ? turn_weights<float>(a, to)
                             : turn_weights<Bf16>(a, to);
}

void SumConvolutionBlocks(const ConvolutionBackwardArgs& a) {
  const std::int64_t size = (a.forward.taps + 1) * a.forward.channels;
  for (std::int64_t i = 0; i < size; ++i) a.dweight[i] = 0.0f;
  for (std::int64_t block = 0; block < a.blocks; ++block) {
    const float* partial = a.partial + block * size;
    for_row(size, [&](std::size_t i, auto part) HWY_ATTR {
      const V sum = hn::Add(load(a.dweight + i, part), load(partial + i, part));
      store(sum, a.dweight + i, part);
    });
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(TurnBlock);
HWY_EXPORT(WeightsForBackward);
HWY_EXPORT(SumConvolutionBlocks);

void cpu::causal_conv1d_backward(const ConvolutionBackwardArgs& args) {
  const ConvolutionArgs& forward = args.forward;
  std::vector<float> weights((forward.taps + 1) * forward.channels);
  HWY_DYNAMIC_DISPATCH(WeightsForBackward)(forward, weights.data());
  const std::int64_t pieces =
      (forward.channels + kPieceChannels - 1) / kPieceChannels;
  parallel_tasks(args.blocks * pieces, [&](std::int64_t task) {
    const std::int64_t first = task % pieces * kPieceChannels;
    HWY_DYNAMIC_DISPATCH(TurnBlock)(args, weights.data(), task / pieces, first);
  });
  HWY_DYNAMIC_DISPATCH(SumConvolutionBlocks)(args);
}

}  // namespace fettle::kernels
#endif
