// SPDX-License-Identifier: Apache-2.0
// The CPU code of packed_matrix.h. Each result is computed by one thread in a
// fixed order.
#pragma once

#include "kernels/cpu/share.h"
#include "kernels/packed_args.h"

namespace fettle::kernels::cpu {

// False where a code has more than its bits. What is packed is then of no use.
bool pack_codes(const PackCodesArgs& args);

// False where a coded row is damaged. What is written is then of no use.
bool unpack_rows(const UnpackRowsArgs& args);
bool packed_products(const PackedProductsArgs& args);
// One thread's part of them, where threads are at hand already.
bool share_of_packed_products(
    const PackedProductsArgs& args, const Share& share);

}  // namespace fettle::kernels::cpu
