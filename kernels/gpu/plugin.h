// SPDX-License-Identifier: Apache-2.0
// What a GPU plug-in (libfettle_cuda.so, libfettle_hip.so) shows: one C
// function that returns one table. The table's layout belongs to a version, and
// Fettle refuses a plug-in of another one.
#pragma once

#include <cstdint>

#include "kernels/gpu/launchers.h"

namespace fettle::kernels {

// Raise with every change of Plugin, of Launchers or of a struct in args.h,
// packed_args.h, gptq_args.h or mixer_args.h.
inline constexpr std::uint32_t kPluginVersion = 7;
inline constexpr const char* kPluginSymbol = "fettle_gpu_plugin";

struct Plugin {
  std::uint32_t version;
  const char* backend;  // "CUDA" or "HIP"
  // Why libtorch cannot use this backend's cards, or null when it can.
  const char* refusal;
  // Counts the cards into `count`. Returns null, or why there is none.
  const char* (*count_devices)(int* count);
  // NVIDIA's number of a card's generation, such as 89 for 8.9; 0 elsewhere.
  int (*compute_capability)(int device);
  Launchers launchers;
};

using PluginFunction = const Plugin* (*)();

}  // namespace fettle::kernels

extern "C" const fettle::kernels::Plugin* fettle_gpu_plugin();
