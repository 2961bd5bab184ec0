// SPDX-License-Identifier: Apache-2.0
#include "kernels/swiglu.h"

#include "kernels/dispatch.h"

namespace fettle::kernels {

namespace {

// Neurons of a row; checks that gate_up is made of such.
std::int64_t width_of(const at::Tensor& gate_up, Activation activation) {
  const std::int64_t inputs = inputs_of(activation);
  FETTLE_ASSERT(gate_up.dim() == 2 && gate_up.size(1) % inputs == 0);
  FETTLE_ASSERT(gate_up.is_contiguous());
  return gate_up.size(1) / inputs;
}

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up, Activation activation) {
  const std::int64_t width = width_of(gate_up, activation);
  at::Tensor h = at::empty({gate_up.size(0), width}, gate_up.options());
  if (h.numel() == 0) return h;
  const SwigluArgs args{
      .dtype = dtype_of(gate_up),
      .activation = activation,
      .rows = gate_up.size(0),
      .width = width,
      .gate_up = gate_up.data_ptr(),
      .h = h.data_ptr()};
  dispatch(gate_up.device(), {"swiglu", cpu::swiglu, &Launchers::swiglu}, args);
  return h;
}

at::Tensor swiglu_backward(
    const at::Tensor& dh, const at::Tensor& gate_up, Activation activation) {
  const std::int64_t width = width_of(gate_up, activation);
  FETTLE_ASSERT(matches(dh, {gate_up.size(0), width}, gate_up));
  at::Tensor d_gate_up = at::empty(gate_up.sizes(), gate_up.options());
  if (dh.numel() == 0) return d_gate_up;
  const SwigluBackwardArgs args{
      .dtype = dtype_of(gate_up),
      .activation = activation,
      .rows = gate_up.size(0),
      .width = width,
      .gate_up = gate_up.data_ptr(),
      .dh = dh.data_ptr(),
      .d_gate_up = d_gate_up.data_ptr()};
  dispatch(
      gate_up.device(),
      {"swiglu_backward", cpu::swiglu_backward, &Launchers::swiglu_backward},
      args);
  return d_gate_up;
}

}  // namespace fettle::kernels
