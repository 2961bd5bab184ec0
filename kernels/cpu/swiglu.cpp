// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/swiglu.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/activation-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Activations with a gate are z·σ(inner(z)) times a factor. Without a clamp, z
// is the gate, and up the factor.
struct Plain {
  static HWY_INLINE V gate(V g) { return g; }
  static HWY_INLINE V factor(V up) { return up; }
  static HWY_INLINE V gate_gradient(V, V d) { return d; }
  static HWY_INLINE V up_gradient(V, V d) { return d; }
};

struct Silu : Plain {
  static HWY_INLINE V inner(V z) { return z; }
  static HWY_INLINE V slope(V) { return hn::Set(D(), 1.0f); }
};

struct GeluTanh : Plain {
  static constexpr float kScale = 1.5957691216057308f;  // 2·√(2/π)
  static constexpr float kCubic = 0.044715f;

  static HWY_INLINE V inner(V z) {
    const D d;
    const V cubic =
        hn::MulAdd(hn::Mul(z, z), hn::Set(d, kCubic), hn::Set(d, 1.0f));
    return hn::Mul(hn::Mul(hn::Set(d, kScale), z), cubic);
  }
  static HWY_INLINE V slope(V z) {
    const D d;
    const V cubic =
        hn::MulAdd(hn::Mul(z, z), hn::Set(d, 3 * kCubic), hn::Set(d, 1.0f));
    return hn::Mul(hn::Set(d, kScale), cubic);
  }
};

struct ClampedSwiglu {
  static HWY_INLINE V inner(V z) {
    return hn::Mul(hn::Set(D(), kSwigluSlope), z);
  }
  static HWY_INLINE V slope(V) { return hn::Set(D(), kSwigluSlope); }
  // Comparisons and not hn::Min, which may lose a NaN.
  static HWY_INLINE V gate(V g) {
    const V limit = hn::Set(D(), kSwigluLimit);
    return hn::IfThenElse(hn::Gt(g, limit), limit, g);
  }
  static HWY_INLINE V factor(V up) {
    const V least = hn::Set(D(), -kSwigluLimit);
    const V below = gate(up);
    return hn::Add(
        hn::IfThenElse(hn::Lt(below, least), least, below), hn::Set(D(), 1.0f));
  }
  static HWY_INLINE V gate_gradient(V g, V d) {
    return hn::IfThenElseZero(hn::Le(g, hn::Set(D(), kSwigluLimit)), d);
  }
  static HWY_INLINE V up_gradient(V up, V d) {
    return hn::IfThenElseZero(
        hn::Le(hn::Abs(up), hn::Set(D(), kSwigluLimit)), d);
  }
};

template <class T, class Act>
void forward(const SwigluArgs& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const T* gate = static_cast<const T*>(a.gate_up) + r * 2 * a.width;
    const T* up = gate + a.width;
    T* h = static_cast<T*>(a.h) + r * a.width;
    for_row(a.width, [&](std::size_t i, auto part) HWY_ATTR {
      const V z = Act::gate(load(gate + i, part));
      const V act = hn::Mul(z, sigmoid(Act::inner(z)));
      store(hn::Mul(act, Act::factor(load(up + i, part))), h + i, part);
    });
  }
}

// d act/dz = s + z·s·(1 − s)·inner'(z), s = σ(inner(z)).
template <class T, class Act>
void backward(const SwigluBackwardArgs& a, std::int64_t b, std::int64_t e) {
  const V one = hn::Set(D(), 1.0f);
  for (std::int64_t r = b; r < e; ++r) {
    const T* gate = static_cast<const T*>(a.gate_up) + r * 2 * a.width;
    const T* up = gate + a.width;
    const T* dh = static_cast<const T*>(a.dh) + r * a.width;
    T* d_gate = static_cast<T*>(a.d_gate_up) + r * 2 * a.width;
    T* d_up = d_gate + a.width;
    for_row(a.width, [&](std::size_t i, auto part) HWY_ATTR {
      const V raw_gate = load(gate + i, part);
      const V raw_up = load(up + i, part);
      const V z = Act::gate(raw_gate);
      const V g = load(dh + i, part);
      const V s = sigmoid(Act::inner(z));
      const V act = hn::Mul(z, s);
      const V bend = hn::Mul(hn::Sub(one, s), Act::slope(z));
      const V d_act = hn::MulAdd(act, bend, s);
      const V d_z = hn::Mul(hn::Mul(g, Act::factor(raw_up)), d_act);
      store(Act::gate_gradient(raw_gate, d_z), d_gate + i, part);
      store(Act::up_gradient(raw_up, hn::Mul(g, act)), d_up + i, part);
    });
  }
}

// A comparison and not hn::Max, which may lose a NaN.
HWY_INLINE V positive(V v) {
  const V zero = hn::Zero(D());
  return hn::IfThenElse(hn::Lt(v, zero), zero, v);
}

template <class T>
void forward_relu2(const SwigluArgs& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const T* up = static_cast<const T*>(a.gate_up) + r * a.width;
    T* h = static_cast<T*>(a.h) + r * a.width;
    for_row(a.width, [&](std::size_t i, auto part) HWY_ATTR {
      const V v = positive(load(up + i, part));
      store(hn::Mul(v, v), h + i, part);
    });
  }
}

template <class T>
void backward_relu2(
    const SwigluBackwardArgs& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    const T* up = static_cast<const T*>(a.gate_up) + r * a.width;
    const T* dh = static_cast<const T*>(a.dh) + r * a.width;
    T* d_up = static_cast<T*>(a.d_gate_up) + r * a.width;
    for_row(a.width, [&](std::size_t i, auto part) HWY_ATTR {
      const V v = positive(load(up + i, part));
      store(hn::Mul(load(dh + i, part), hn::Add(v, v)), d_up + i, part);
    });
  }
}

template <class T>
void forward_as(const SwigluArgs& a, std::int64_t b, std::int64_t e) {
  switch (a.activation) {
    case Activation::kSilu:
      return forward<T, Silu>(a, b, e);
    case Activation::kGeluTanh:
      return forward<T, GeluTanh>(a, b, e);
    case Activation::kClampedSwiglu:
      return forward<T, ClampedSwiglu>(a, b, e);
    case Activation::kRelu2:
      return forward_relu2<T>(a, b, e);
  }
}

template <class T>
void backward_as(const SwigluBackwardArgs& a, std::int64_t b, std::int64_t e) {
  switch (a.activation) {
    case Activation::kSilu:
      return backward<T, Silu>(a, b, e);
    case Activation::kGeluTanh:
      return backward<T, GeluTanh>(a, b, e);
    case Activation::kClampedSwiglu:
      return backward<T, ClampedSwiglu>(a, b, e);
    case Activation::kRelu2:
      return backward_relu2<T>(a, b, e);
  }
}

void ForwardRows(const SwigluArgs& a, std::int64_t b, std::int64_t e) {
  const bool wide = a.dtype == DType::kFloat32;
  wide ? forward_as<float>(a, b, e) : forward_as<Bf16>(a, b, e);
}

void BackwardRows(const SwigluBackwardArgs& a, std::int64_t b, std::int64_t e) {
  const bool wide = a.dtype == DType::kFloat32;
  wide ? backward_as<float>(a, b, e) : backward_as<Bf16>(a, b, e);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(ForwardRows);
HWY_EXPORT(BackwardRows);

void cpu::swiglu(const SwigluArgs& args) {
  parallel_rows(args.rows, 4 * args.width, [&](auto begin, auto end) {
    HWY_DYNAMIC_DISPATCH(ForwardRows)(args, begin, end);
  });
}

void cpu::swiglu_backward(const SwigluBackwardArgs& args) {
  parallel_rows(args.rows, 6 * args.width, [&](auto begin, auto end) {
    HWY_DYNAMIC_DISPATCH(BackwardRows)(args, begin, end);
  });
}

}  // namespace fettle::kernels
#endif
