// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/expert_rows.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// All of a token's rows are read side by side, so that y is written once.
template <class T>
void combine(const CombineArgs& a, std::int64_t begin, std::int64_t end) {
  const T* rows[kMaxTopK];
  float weights[kMaxTopK];
  for (std::int64_t n = begin; n < end; ++n) {
    int count = 0;
    for (std::int64_t k = n * a.top_k; k < (n + 1) * a.top_k; ++k) {
      if (a.position[k] < 0) continue;
      rows[count] = static_cast<const T*>(a.rows) + a.position[k] * a.cols;
      weights[count++] = a.weights == nullptr ? 1.0f : a.weights[k];
    }
    T* y = static_cast<T*>(a.y) + n * a.cols;
    for_row(a.cols, [&](std::size_t i, auto part) HWY_ATTR {
      V sum = hn::Zero(D());
      for (int k = 0; k < count; ++k) {
        const V w = hn::Set(D(), weights[k]);
        sum = hn::MulAdd(w, load(rows[k] + i, part), sum);
      }
      store(sum, y + i, part);
    });
  }
}

template <class T>
void backward(const CombineBackwardArgs& a, std::int64_t b, std::int64_t e) {
  for (std::int64_t n = b; n < e; ++n) {
    const T* dy = static_cast<const T*>(a.dy) + n * a.cols;
    for (std::int64_t k = n * a.top_k; k < (n + 1) * a.top_k; ++k) {
      const std::int64_t m = a.position[k];
      if (m < 0) {
        a.d_weights[k] = 0.0f;
        continue;
      }
      const T* row = static_cast<const T*>(a.rows) + m * a.cols;
      T* d_row = static_cast<T*>(a.d_rows) + m * a.cols;
      const V w = hn::Set(D(), a.weights[k]);
      a.d_weights[k] =
          sum_row(a.cols, [&](V sum, std::size_t i, auto part) HWY_ATTR {
            const V g = load(dy + i, part);
            store(hn::Mul(w, g), d_row + i, part);
            return hn::MulAdd(g, load(row + i, part), sum);
          });
    }
  }
}

void CombineTokens(const CombineArgs& a, std::int64_t b, std::int64_t e) {
  a.dtype == DType::kFloat32 ? combine<float>(a, b, e) : combine<Bf16>(a, b, e);
}

void BackwardTokens(
    const CombineBackwardArgs& a, std::int64_t b, std::int64_t e) {
  a.dtype == DType::kFloat32 ? backward<float>(a, b, e)
                             : backward<Bf16>(a, b, e);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(CombineTokens);
HWY_EXPORT(BackwardTokens);

void cpu::gather_rows(const GatherRowsArgs& a) {
  parallel_rows(a.rows, a.row_bytes / 4, [&](auto begin, auto end) {
    const auto* x = static_cast<const char*>(a.x);
    auto* out = static_cast<char*>(a.out);
    for (std::int64_t m = begin; m < end; ++m) {
      std::memcpy(
          out + m * a.row_bytes, x + a.index[m] * a.row_bytes, a.row_bytes);
    }
  });
}

void cpu::combine(const CombineArgs& a) {
  parallel_rows(a.tokens, (a.top_k + 1) * a.cols, [&](auto begin, auto end) {
    HWY_DYNAMIC_DISPATCH(CombineTokens)(a, begin, end);
  });
}

void cpu::combine_backward(const CombineBackwardArgs& a) {
  parallel_rows(a.tokens, 3 * a.top_k * a.cols, [&](auto begin, auto end) {
    HWY_DYNAMIC_DISPATCH(BackwardTokens)(a, begin, end);
  });
}

}  // namespace fettle::kernels
#endif
