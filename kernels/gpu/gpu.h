// SPDX-License-Identifier: Apache-2.0
// The GPU code of every op, as launchers.h describes a launcher. Sums have a
// fixed order: no atomics, the same bits every time on the same card.
#pragma once

#include "kernels/args.h"
#include "kernels/gptq_args.h"
#include "kernels/mixer_args.h"
#include "kernels/packed_args.h"

namespace fettle::kernels::gpu {

const char* count_devices(int* count);
int compute_capability(int device);

const char* rms_norm(const RmsNormArgs& args, void* stream);
const char* rms_norm_backward(const RmsNormBackwardArgs& args, void* stream);
const char* swiglu(const SwigluArgs& args, void* stream);
const char* swiglu_backward(const SwigluBackwardArgs& args, void* stream);
const char* gather_rows(const GatherRowsArgs& args, void* stream);
const char* combine(const CombineArgs& args, void* stream);
const char* combine_backward(const CombineBackwardArgs& args, void* stream);
const char* cross_entropy(const CrossEntropyArgs& args, void* stream);
const char* rope(const RopeArgs& args, void* stream);
const char* causal_conv1d(const ConvolutionArgs& args, void* stream);
const char* causal_conv1d_backward(
    const ConvolutionBackwardArgs& args, void* stream);
const char* scan_steps(const ScanArgs& args, void* stream);
const char* unpack_rows(const UnpackRowsArgs& args, void* stream);
const char* packed_products(const PackedProductsArgs& args, void* stream);
const char* fit_grid(const FitGridArgs& args, void* stream);
const char* gptq_block(const GptqBlockArgs& args, void* stream);

}  // namespace fettle::kernels::gpu
