// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/plugin.h"

#include "kernels/gpu/gpu.h"

namespace {

using namespace fettle::kernels;

constexpr Plugin kPlugin = {
    .version = kPluginVersion,
    .backend = FETTLE_PLUGIN_BACKEND,
    .refusal = FETTLE_PLUGIN_REFUSAL,
    .count_devices = gpu::count_devices,
    .compute_capability = gpu::compute_capability,
    .launchers = {
        .rms_norm = gpu::rms_norm,
        .rms_norm_backward = gpu::rms_norm_backward,
        .swiglu = gpu::swiglu,
        .swiglu_backward = gpu::swiglu_backward,
        .gather_rows = gpu::gather_rows,
        .combine = gpu::combine,
        .combine_backward = gpu::combine_backward,
        .cross_entropy = gpu::cross_entropy,
        .rope = gpu::rope,
        .causal_conv1d = gpu::causal_conv1d,
        .causal_conv1d_backward = gpu::causal_conv1d_backward,
        .scan_steps = gpu::scan_steps,
        .unpack_rows = gpu::unpack_rows,
        .packed_products = gpu::packed_products,
        .fit_grid = gpu::fit_grid,
        .gptq_block = gpu::gptq_block,
    }};

}  // namespace

const fettle::kernels::Plugin* fettle_gpu_plugin() { return &kPlugin; }
