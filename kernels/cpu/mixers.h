// SPDX-License-Identifier: Apache-2.0
// The CPU code of recurrent token mixers, as cpu.h has it for the other ops.
#pragma once

#include "kernels/mixer_args.h"

namespace fettle::kernels {

// Channels of a task of the convolution's backward pass.
inline constexpr std::int64_t kPieceChannels = 256;

namespace cpu {

void causal_conv1d(const ConvolutionArgs& args);
void causal_conv1d_backward(const ConvolutionBackwardArgs& args);
void scan(const ScanArgs& args);
void scan_backward(const ScanBackwardArgs& args);

}  // namespace cpu
}  // namespace fettle::kernels
