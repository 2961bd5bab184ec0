// SPDX-License-Identifier: Apache-2.0
#include "kernels/selective_scan.h"

#include "kernels/dispatch.h"
#include "kernels/scan.h"

namespace fettle::kernels {
namespace {

// C, B and x are queries, keys and values; dt is how much of them is written.
ScanInputs scan_inputs(const SelectiveScanInputs& in) {
  (void)dtype_of(in.x);
  FETTLE_ASSERT(in.b.dtype() == in.x.dtype() && in.c.dtype() == in.x.dtype());
  FETTLE_ASSERT(in.x.dim() == 3 && in.d.defined());
  FETTLE_ASSERT(matches_as(in.a, {in.x.size(1)}, in.x, at::kFloat));
  return {
      in.c.to(at::kFloat),
      in.b.to(at::kFloat),
      in.x.to(at::kFloat),
      in.dt * in.a,
      in.dt,
      in.d};
}

ScanOptions scan_options(const SelectiveScanOptions& options) {
  return {.starts = options.starts, .state = options.state};
}

}  // namespace

at::Tensor selective_scan(
    const SelectiveScanInputs& inputs, const SelectiveScanOptions& options) {
  return scan(scan_inputs(inputs), scan_options(options))
      .to(inputs.x.scalar_type());
}

SelectiveScanGradients selective_scan_backward(
    const at::Tensor& dy,
    const SelectiveScanInputs& inputs,
    const SelectiveScanOptions& options) {
  FETTLE_ASSERT(dy.dtype() == inputs.x.dtype());
  const ScanGradients back = scan_backward(
      dy.to(at::kFloat), scan_inputs(inputs), scan_options(options));
  const auto dtype = inputs.x.scalar_type();
  return {
      back.dv.to(dtype),
      back.dwrite + back.dg * inputs.a,
      (back.dg * inputs.dt).sum(0),
      back.dk.to(dtype),
      back.dq.to(dtype),
      back.dskip};
}

}  // namespace fettle::kernels
