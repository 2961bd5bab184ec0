// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta.h"

#include <cmath>

#include "kernels/dispatch.h"
#include "kernels/scan.h"

namespace fettle::kernels {
namespace {

ScanInputs widened(const GatedDeltaInputs& in) {
  (void)dtype_of(in.q);
  FETTLE_ASSERT(in.k.dtype() == in.q.dtype() && in.v.dtype() == in.q.dtype());
  return {
      in.q.to(at::kFloat),
      in.k.to(at::kFloat),
      in.v.to(at::kFloat),
      in.g,
      in.beta,
      {}};
}

ScanOptions delta_rule(
    const GatedDeltaInputs& in, const GatedDeltaOptions& options) {
  return {
      .delta = true,
      .eps = options.eps,
      .scale = 1 / std::sqrt(static_cast<double>(in.q.size(-1))),
      .starts = options.starts,
      .state = options.state};
}

}  // namespace

at::Tensor gated_delta(
    const GatedDeltaInputs& inputs, const GatedDeltaOptions& options) {
  const ScanInputs wide = widened(inputs);
  return scan(wide, delta_rule(inputs, options)).to(inputs.v.scalar_type());
}

GatedDeltaGradients gated_delta_backward(
    const at::Tensor& d_out,
    const GatedDeltaInputs& inputs,
    const GatedDeltaOptions& options) {
  const ScanInputs wide = widened(inputs);
  FETTLE_ASSERT(d_out.dtype() == inputs.v.dtype());
  const ScanGradients back =
      scan_backward(d_out.to(at::kFloat), wide, delta_rule(inputs, options));
  const auto dtype = inputs.q.scalar_type();
  return {
      back.dq.to(dtype),
      back.dk.to(dtype),
      back.dv.to(dtype),
      back.dg,
      back.dwrite};
}

}  // namespace fettle::kernels
