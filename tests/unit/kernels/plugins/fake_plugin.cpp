// SPDX-License-Identifier: Apache-2.0
// Plug-ins without a kernel, one for each reason to refuse one.
#include "kernels/gpu/plugin.h"

namespace {

const char* count_cards(int* count) {
  *count = FAKE_CARDS;
  return FAKE_CARDS > 0 ? nullptr : "no card in the slot";
}

constexpr fettle::kernels::Plugin kPlugin = {
    .version = FAKE_VERSION,
    .backend = "CUDA",
    .refusal = FAKE_REFUSAL,
    .count_devices = count_cards,
    .compute_capability = [](int) { return 0; },
    .launchers = {}};

}  // namespace

const fettle::kernels::Plugin* fettle_gpu_plugin() { return &kPlugin; }
