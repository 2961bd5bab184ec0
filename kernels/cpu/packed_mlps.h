// SPDX-License-Identifier: Apache-2.0
// What packed_mlps.cpp hands to the CPU code: float32, checked.
#pragma once

#include <span>

#include "kernels/args.h"
#include "kernels/cpu/rounded.h"
#include "kernels/packed_args.h"

namespace fettle::kernels {

// Products whose rows of x are as they are, and rounded ones.
struct MixedProducts {
  std::span<const PackedProductArgs> plain;
  std::span<const RoundedProductArgs> rounded;
};

// The rows of one MLP between its products.
struct MlpRowsArgs {
  SwigluArgs activation;
  RoundingArgs rounding;  // of what the activation gives; n is 0: of nothing
};

struct PackedMlpsArgs {
  MixedProducts in;  // with gates and ups
  std::span<const MlpRowsArgs> between;
  MixedProducts out;  // with downs
};

namespace cpu {

// False where a code is damaged. What is written is then of no use.
bool packed_mlps(const PackedMlpsArgs& args);

}  // namespace cpu
}  // namespace fettle::kernels
