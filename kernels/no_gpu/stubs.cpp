// SPDX-License-Identifier: Apache-2.0
#include "kernels/no_gpu/stubs.h"

namespace fettle::kernels {
namespace {

template <class Args>
const char* refuse(const Args&, void*) {
  return "no GPU backend: build with nvcc or hipcc";
}

constexpr Launchers kStubs = {
    .rms_norm = refuse,
    .rms_norm_backward = refuse,
    .swiglu = refuse,
    .swiglu_backward = refuse,
    .gather_rows = refuse,
    .combine = refuse,
    .combine_backward = refuse,
    .cross_entropy = refuse,
    .rope = refuse,
    .causal_conv1d = refuse,
    .causal_conv1d_backward = refuse,
    .scan_steps = refuse,
    .unpack_rows = refuse,
    .packed_products = refuse,
    .fit_grid = refuse,
    .gptq_block = refuse,
};

}  // namespace

const Launchers& no_gpu_launchers() { return kStubs; }

}  // namespace fettle::kernels
