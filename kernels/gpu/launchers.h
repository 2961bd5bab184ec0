// SPDX-License-Identifier: Apache-2.0
// The GPU side of every op as a table of plain functions: what a plug-in hands
// to Fettle, and what the stubs of no_gpu/ hand over where there is none.
#pragma once

#include <cstdint>

#include "kernels/args.h"
#include "kernels/gptq_args.h"
#include "kernels/mixer_args.h"
#include "kernels/packed_args.h"

namespace fettle::kernels {

// Queues an op on `stream` (a cudaStream_t or hipStream_t) of the device that
// is current. Returns null, or why nothing was queued.
template <class Args>
using Launcher = const char* (*)(const Args& args, void* stream);

struct Launchers {
  Launcher<RmsNormArgs> rms_norm;
  Launcher<RmsNormBackwardArgs> rms_norm_backward;
  Launcher<SwigluArgs> swiglu;
  Launcher<SwigluBackwardArgs> swiglu_backward;
  Launcher<GatherRowsArgs> gather_rows;
  Launcher<CombineArgs> combine;
  Launcher<CombineBackwardArgs> combine_backward;
  Launcher<CrossEntropyArgs> cross_entropy;
  Launcher<RopeArgs> rope;
  Launcher<ConvolutionArgs> causal_conv1d;
  Launcher<ConvolutionBackwardArgs> causal_conv1d_backward;
  Launcher<ScanArgs> scan_steps;
  Launcher<UnpackRowsArgs> unpack_rows;
  Launcher<PackedProductsArgs> packed_products;
  Launcher<FitGridArgs> fit_grid;
  Launcher<GptqBlockArgs> gptq_block;
};

}  // namespace fettle::kernels
