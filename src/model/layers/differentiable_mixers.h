// SPDX-License-Identifier: Apache-2.0
// Kernels of token mixers as autograd functions. Each saves only what its
// backward needs.
#pragma once

#include <ATen/ATen.h>

#include "kernels/causal_conv1d.h"
#include "kernels/gated_delta.h"
#include "kernels/selective_scan.h"

namespace fettle::model {

// See kernels/causal_conv1d.h; without a state.
at::Tensor causal_convolution(
    const at::Tensor& x,
    const kernels::ConvolutionWeights& weights,
    const kernels::ConvolutionOptions& options);

// See kernels/gated_delta.h; without a state.
at::Tensor gated_delta_rule(
    const kernels::GatedDeltaInputs& inputs,
    const kernels::GatedDeltaOptions& options);

// See kernels/selective_scan.h; without a state.
at::Tensor selective_scan(
    const kernels::SelectiveScanInputs& inputs,
    const kernels::SelectiveScanOptions& options);

}  // namespace fettle::model
