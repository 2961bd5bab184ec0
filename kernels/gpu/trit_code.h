// SPDX-License-Identifier: Apache-2.0
// Coded trits on a GPU, which packed_matrix.cu hands on. A GPU cannot refuse a
// damaged row: it makes it NaN.
#pragma once

#include "kernels/packed_args.h"

namespace fettle::kernels::gpu {

inline bool is_trit_code(PackedKind kind) {
  return kind == PackedKind::kTernaryWords ||
         kind == PackedKind::kTernaryHuffman;
}

const char* unpack_trit_rows(const UnpackRowsArgs& args, void* stream);

// Those products of `args` whose matrices are coded.
const char* trit_products(const PackedProductsArgs& args, void* stream);

}  // namespace fettle::kernels::gpu
