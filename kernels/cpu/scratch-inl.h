// SPDX-License-Identifier: Apache-2.0
// Scratch memory of a task, and matrices copied into it with their rows filled
// up to whole vectors.
#if defined(FETTLE_KERNELS_CPU_SCRATCH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_SCRATCH_INL_H_
#undef FETTLE_KERNELS_CPU_SCRATCH_INL_H_
#else
#define FETTLE_KERNELS_CPU_SCRATCH_INL_H_
#endif

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

HWY_INLINE std::size_t whole_vectors(std::size_t n) {
  const std::size_t lanes = hn::Lanes(D());
  return (n + lanes - 1) / lanes * lanes;
}

HWY_INLINE std::size_t smaller(std::size_t a, std::size_t b) {
  return a < b ? a : b;
}

HWY_INLINE void fill(float* to, std::size_t n, float value) {
  for (std::size_t i = 0; i < n; ++i) to[i] = value;
}

// Hands out pieces of a task's scratch memory. Containers of the standard
// library have no place here: their code would be shared between instruction
// sets.
class Scratch {
 public:
  explicit Scratch(float* memory) : next_(memory) {}
  float* take(std::size_t n) {
    float* const piece = next_;
    next_ += n;
    return piece;
  }
  float* zeros(std::size_t n) {
    fill(next_, n, 0.0f);
    return take(n);
  }

 private:
  float* next_;
};

// Rows of `cols` values, copied with each row filled up by zeros, or turned.
struct Source {
  const float* data;
  std::size_t stride, rows, cols;
};

inline void copy_padded(const Source& from, float factor, float* to) {
  const std::size_t width = whole_vectors(from.cols);
  for (std::size_t r = 0; r < from.rows; ++r) {
    for (std::size_t c = 0; c < from.cols; ++c) {
      to[r * width + c] = factor * from.data[r * from.stride + c];
    }
    fill(to + r * width + from.cols, width - from.cols, 0.0f);
  }
}

inline void copy_turned(const Source& from, std::size_t width, float* to) {
  for (std::size_t c = 0; c < from.cols; ++c) {
    for (std::size_t r = 0; r < from.rows; ++r) {
      to[c * width + r] = from.data[r * from.stride + c];
    }
    fill(to + c * width + from.rows, width - from.rows, 0.0f);
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
