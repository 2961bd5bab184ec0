// SPDX-License-Identifier: Apache-2.0
// Opening the device a command runs on. The GPU half of libtorch comes with the
// plug-in, and ATen looks for it once and keeps what it found: open the device
// before anything else asks ATen about CUDA.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>

#include "core/device.h"
#include "kernels/gpu/launchers.h"

namespace fettle::kernels {

// The device for ATen's use. For a GPU, opens the plug-in found at `place`
// first; a process keeps the one it has opened. Throws UserError when there is
// no plug-in, when it is another version's, when libtorch can't drive its
// cards, and when there is no card or none of that number.
at::Device open_device(
    const DeviceSpec& spec,
    const std::filesystem::path& place = gpu_plugin_place());

// NVIDIA's number of a card's generation, such as 89 for 8.9; 0 of other
// devices.
int compute_capability(at::Device device);

// What libtorch reserves of a card beside what tensors need: the workspace of
// its matrix products, and unused tails of its allocator's segments.
struct LibraryUse {
  bool backward = false;  // whether backward passes run too
};
std::int64_t library_bytes(at::Device device, LibraryUse use);

// Bytes of a card that nobody has, and the most that this process has reserved
// there so far: what is in use, and what lies idle between uses.
std::int64_t free_device_memory(at::Device device);
std::int64_t peak_device_memory(at::Device device);

// The launchers of the plug-in that is open, or stubs that refuse.
const Launchers& gpu_launchers();

}  // namespace fettle::kernels
