// SPDX-License-Identifier: Apache-2.0
#include "cli/version_text.h"

#include <fmt/format.h>
#include <torch/headeronly/version.h>

#include "artifact/manifest.h"
#include "core/device.h"
#include "kernels/instruction_set.h"

namespace fettle::cli {
namespace {

// Looks for the file only: opening it starts the driver.
std::string gpu_text() {
  const std::filesystem::path plugin = find_gpu_plugin(gpu_plugin_place());
  if (!plugin.empty()) return fmt::format("plug-in {}", plugin.string());
  return std::string(FETTLE_GPU_BUILT) == "none"
             ? "none: built without a GPU plug-in, and none is found"
             : "none: the plug-in that was built is not beside the program";
}

}  // namespace

std::string version_text() {
  return fmt::format(
      "fettle {}\n"
      "build: {}, {} {}, libtorch {}\n"
      "CPU: {}\n"
      "GPU: {}",
      artifact::version(),
      FETTLE_BUILD_TYPE,
      FETTLE_COMPILER,
      __VERSION__,
      TORCH_VERSION,
      kernels::instruction_set(),
      gpu_text());
}

}  // namespace fettle::cli
