// SPDX-License-Identifier: Apache-2.0
#include "quant/trit_packing.h"

namespace fettle::quant {

kernels::PackedMatrix pack_trits(
    const kernels::Quantized& quantized, const kernels::QuantGrid& grid) {
  return kernels::pack(quantized, grid);
}

}  // namespace fettle::quant
