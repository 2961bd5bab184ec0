// SPDX-License-Identifier: Apache-2.0
// The recurrence itself, for sequences of a few tokens: what they take is the
// time to read and write the state.
#if defined(FETTLE_KERNELS_CPU_SCAN_STEPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_SCAN_STEPS_INL_H_
#undef FETTLE_KERNELS_CPU_SCAN_STEPS_INL_H_
#else
#define FETTLE_KERNELS_CPU_SCAN_STEPS_INL_H_
#endif

#include "kernels/cpu/scan_chunk-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// One token of one head on its state, [Dk, Dv] with rows of `size` values.
template <bool kDelta>
struct ScanStep {
  const float *q, *k, *v;  // normalised, scaled
  float decay, write, skip;
  std::size_t key_size, size;

  // N vectors of columns from c on: of the output, and of the state, which
  // moves on. Their sums stay in registers.
  template <int N, class P>
  HWY_INLINE void columns(
      float* state, std::size_t c, float* out, P part) const {
    const std::size_t lanes = hn::Lanes(D());
    const V by = hn::Set(D(), decay);
    V u[N], sum[N];
    for (int n = 0; n < N; ++n) {
      const V value = load(v + c + n * lanes, part);
      u[n] = hn::Mul(hn::Set(D(), write), value);
      sum[n] = hn::Mul(hn::Set(D(), skip), value);
    }
    if constexpr (kDelta) {
      // What decays is read, and what was read is not written again.
      const float down = -decay * write;
      for (std::size_t d = 0; d < key_size; ++d) {
        const V key = hn::Set(D(), down * k[d]);
        for (int n = 0; n < N; ++n) {
          const float* at = state + d * size + c + n * lanes;
          u[n] = hn::MulAdd(key, load(at, part), u[n]);
        }
      }
    }
    for (std::size_t d = 0; d < key_size; ++d) {
      const V key = hn::Set(D(), k[d]), query = hn::Set(D(), q[d]);
      for (int n = 0; n < N; ++n) {
        float* const at = state + d * size + c + n * lanes;
        const V s = hn::MulAdd(key, u[n], hn::Mul(by, load(at, part)));
        store(s, at, part);
        sum[n] = hn::MulAdd(query, s, sum[n]);
      }
    }
    for (int n = 0; n < N; ++n) store(sum[n], out + c + n * lanes, part);
  }

  void run(float* state, float* out) const {
    constexpr int kColumns = 4;
    const std::size_t lanes = hn::Lanes(D());
    std::size_t c = 0;
    for (; c + kColumns * lanes <= size; c += kColumns * lanes) {
      columns<kColumns>(state, c, out, Whole{});
    }
    for (; c + lanes <= size; c += lanes) columns<1>(state, c, out, Whole{});
    if (c < size) columns<1>(state, c, out, Part{size - c});
  }
};

// All tokens of a task's sequence.
template <bool kDelta>
void scan_steps(const ScanTask& t, float* memory) {
  Scratch scratch(memory);
  const ScanArgs& a = t.a;
  float* const q = scratch.take(kMostSteps * t.key_stride);
  float* const k = scratch.take(kMostSteps * t.key_stride);
  float* const own =
      scratch.take(a.state == nullptr ? t.key_size * t.value_size : 0);
  const auto rows = [&](const Rows& x, std::size_t size, std::size_t head) {
    return Source{
        static_cast<const float*>(x.data) + t.first * x.token_stride +
            head * x.head_stride,
        std::size_t(x.token_stride),
        t.length,
        size};
  };
  const UnitRows queries{kDelta, a.eps, a.scale}, keys{kDelta, a.eps, 1.0f};
  copy_rows(
      rows(a.q, t.key_size, t.key_head), queries, t.key_stride, q, nullptr);
  copy_rows(rows(a.k, t.key_size, t.key_head), keys, t.key_stride, k, nullptr);
  for (std::size_t head = 0; head < t.heads; ++head) {
    float* state = t.given_state(head);
    if (state == nullptr) {
      fill(own, t.key_size * t.value_size, 0.0f);
      state = own;
    }
    const Source v = rows(a.v, t.value_size, t.first_head + head);
    for (std::size_t n = 0; n < t.length; ++n) {
      const std::size_t at = t.index(head, n);
      const ScanStep<kDelta> step{
          q + n * t.key_stride,
          k + n * t.key_stride,
          v.data + n * v.stride,
          __builtin_expf(a.g[at]),
          a.write[at],
          a.skip == nullptr ? 0.0f : a.skip[t.first_head + head],
          t.key_size,
          t.value_size};
      step.run(state, a.out + at * t.value_size);
    }
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
