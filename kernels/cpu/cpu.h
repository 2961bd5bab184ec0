// SPDX-License-Identifier: Apache-2.0
// The CPU code of every op: float32 and bfloat16, arithmetic in float32. Each
// result is computed by one thread in a fixed order, so it has the same bits
// whatever the number of threads. Instruction sets are chosen at run time.
#pragma once

#include "kernels/args.h"

namespace fettle::kernels::cpu {

void rms_norm(const RmsNormArgs& args);
void rms_norm_backward(const RmsNormBackwardArgs& args);
void swiglu(const SwigluArgs& args);
void swiglu_backward(const SwigluBackwardArgs& args);
void gather_rows(const GatherRowsArgs& args);
void combine(const CombineArgs& args);
void combine_backward(const CombineBackwardArgs& args);
void cross_entropy(const CrossEntropyArgs& args);
void rope(const RopeArgs& args);

}  // namespace fettle::kernels::cpu
