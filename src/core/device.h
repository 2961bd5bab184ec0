// SPDX-License-Identifier: Apache-2.0
// Which device a command runs on, and where the GPU plug-in lies. Knows no
// torch: kernels/device_backend.h opens the device.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace fettle {

struct DeviceSpec {
  bool gpu = false;
  int index = 0;  // of the card, counted from 0

  std::string name() const;  // "cpu", "cuda:1"
  bool operator==(const DeviceSpec&) const = default;
};

// Parses "cpu", "cuda" (the first card) or "cuda:1". AMD cards are "cuda" too,
// as libtorch calls them. Throws UsageError on anything else.
DeviceSpec parse_device(std::string_view text);

// Where the plug-in is looked for: $FETTLE_PLUGIN_PATH, a folder or a file, or
// else the folder of the running program, or that of its installed libraries.
std::filesystem::path gpu_plugin_place();

// The plug-in at `place`: the file itself, or libfettle_cuda.so or
// libfettle_hip.so in the folder. Empty when there is none.
std::filesystem::path find_gpu_plugin(const std::filesystem::path& place);

// Loads the shared library for the rest of the process, its symbols visible to
// libraries loaded later, and returns the address of `symbol` in it. Throws
// UserError when the file or the symbol cannot be had.
void* open_plugin(
    const std::filesystem::path& library, const std::string& symbol);

}  // namespace fettle
