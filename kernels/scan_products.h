// SPDX-License-Identifier: Apache-2.0
// A scan as ATen's batched products over chunks, on any device.
#pragma once

#include "kernels/scan.h"

namespace fettle::kernels {

// Computes scan() on checked inputs of one or more tokens.
at::Tensor scan_products(const ScanInputs& inputs, const ScanOptions& options);

ScanGradients scan_products_backward(
    const at::Tensor& d_out,
    const ScanInputs& inputs,
    const ScanOptions& options);

}  // namespace fettle::kernels
