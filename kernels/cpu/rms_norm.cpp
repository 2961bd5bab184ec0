// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rms_norm.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/vec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

template <class T>
void forward(const RmsNormArgs& a, std::int64_t begin, std::int64_t end) {
  const std::size_t n = a.cols;
  const T* w = static_cast<const T*>(a.w);
  const V offset = hn::Set(D(), a.offset);
  const bool plain = a.offset == 0.0f;
  for (std::int64_t r = begin; r < end; ++r) {
    const T* x = static_cast<const T*>(a.x.data) + row_offset(a.x, r);
    T* y = static_cast<T*>(a.y) + r * a.cols;
    const float squares =
        sum_row(n, [&](V sum, std::size_t i, auto part) HWY_ATTR {
          const V v = load(x + i, part);
          return hn::MulAdd(v, v, sum);
        });
    const float rstd =
        1.0f / std::sqrt(squares / static_cast<float>(a.cols) + a.eps);
    a.rstd[r] = rstd;
    const V scale = hn::Set(D(), rstd);
    for_row(n, [&](std::size_t i, auto part) HWY_ATTR {
      const V hat = hn::Mul(load(x + i, part), scale);
      const V weight = hn::Add(load(w + i, part), offset);
      store(hn::Mul(plain ? rounded_to<T>(hat) : hat, weight), y + i, part);
    });
  }
}

// With g = dy·(offset + w) and x̂ = x·rstd: dx = rstd·(g − x̂·mean(g·x̂)).
template <class T>
void backward_row(const RmsNormBackwardArgs& a, std::int64_t r, float* dw) {
  const std::size_t n = a.cols;
  const T* x = static_cast<const T*>(a.x.data) + row_offset(a.x, r);
  const T* dy = static_cast<const T*>(a.dy.data) + row_offset(a.dy, r);
  const T* w = static_cast<const T*>(a.w);
  T* dx = static_cast<T*>(a.dx) + r * a.cols;
  const float rstd = a.rstd[r];
  const V offset = hn::Set(D(), a.offset);
  const float dot = sum_row(n, [&](V sum, std::size_t i, auto part) HWY_ATTR {
    const V weight = hn::Add(load(w + i, part), offset);
    const V g = hn::Mul(load(dy + i, part), weight);
    return hn::MulAdd(g, load(x + i, part), sum);
  });
  const V scale = hn::Set(D(), rstd);
  const V pull =
      hn::Set(D(), dot * rstd * rstd * rstd / static_cast<float>(a.cols));
  for_row(n, [&](std::size_t i, auto part) HWY_ATTR {
    const V vx = load(x + i, part);
    const V vdy = load(dy + i, part);
    const V weight = hn::Add(load(w + i, part), offset);
    const V g = hn::Mul(hn::Mul(vdy, weight), scale);
    if (dw != nullptr) {
      const V sum = load(dw + i, part);
      store(hn::MulAdd(hn::Mul(vdy, vx), scale, sum), dw + i, part);
    }
    store(hn::NegMulAdd(vx, pull, g), dx + i, part);
  });
}

template <class T>
void backward(const RmsNormBackwardArgs& a, std::int64_t b, std::int64_t e) {
  for (std::int64_t block = b; block < e; ++block) {
    float* dw = a.dw == nullptr ? nullptr : a.partial + block * a.cols;
    if (dw != nullptr) std::fill_n(dw, a.cols, 0.0f);
    const std::int64_t last = a.rows * (block + 1) / a.blocks;
    for (std::int64_t r = a.rows * block / a.blocks; r < last; ++r) {
      backward_row<T>(a, r, dw);
    }
  }
}

void ForwardRows(const RmsNormArgs& a, std::int64_t b, std::int64_t e) {
  a.dtype == DType::kFloat32 ? forward<float>(a, b, e) : forward<Bf16>(a, b, e);
}

void BackwardBlocks(
    const RmsNormBackwardArgs& a, std::int64_t b, std::int64_t e) {
  a.dtype == DType::kFloat32 ? backward<float>(a, b, e)
                             : backward<Bf16>(a, b, e);
}

void SumBlocks(const RmsNormBackwardArgs& a) {
  std::fill_n(a.dw, a.cols, 0.0f);
  for (std::int64_t block = 0; block < a.blocks; ++block) {
    const float* partial = a.partial + block * a.cols;
    for_row(a.cols, [&](std::size_t i, auto part) HWY_ATTR {
      const V sum = hn::Add(load(a.dw + i, part), load(partial + i, part));
      store(sum, a.dw + i, part);
    });
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(ForwardRows);
HWY_EXPORT(BackwardBlocks);
HWY_EXPORT(SumBlocks);

void cpu::rms_norm(const RmsNormArgs& args) {
  parallel_rows(args.rows, 3 * args.cols, [&](auto begin, auto end) {
    HWY_DYNAMIC_DISPATCH(ForwardRows)(args, begin, end);
  });
}

void cpu::rms_norm_backward(const RmsNormBackwardArgs& args) {
  const std::int64_t work = 5 * args.cols * (args.rows / args.blocks + 1);
  parallel_rows(args.blocks, work, [&](auto begin, auto end) {
    HWY_DYNAMIC_DISPATCH(BackwardBlocks)(args, begin, end);
  });
  if (args.dw != nullptr) HWY_DYNAMIC_DISPATCH(SumBlocks)(args);
}

}  // namespace fettle::kernels
#endif
