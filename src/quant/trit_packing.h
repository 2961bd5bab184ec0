// SPDX-License-Identifier: Apache-2.0
// Ternary weights in the packing that makes them smallest.
#pragma once

#include "kernels/gptq.h"
#include "kernels/packed_matrix.h"

namespace fettle::quant {

// The smallest of five trits a byte and both codes of kernels/trit_code.h.
kernels::PackedMatrix pack_trits(
    const kernels::Quantized& quantized, const kernels::QuantGrid& grid);

}  // namespace fettle::quant
