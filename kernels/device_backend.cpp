// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_backend.h"

#include <c10/core/CachingDeviceAllocator.h>
#include <fmt/format.h>

#include <atomic>

#include "core/error.h"
#include "kernels/gpu/plugin.h"
#include "kernels/no_gpu/stubs.h"

namespace fettle::kernels {
namespace {

// Belongs to the process, like the libraries that opening a plug-in loads and
// like ATen's own list of devices.
std::atomic<const Plugin*>& open_one() {
  static std::atomic<const Plugin*> plugin = nullptr;
  return plugin;
}

const Plugin& load(const DeviceSpec& spec, const std::filesystem::path& place) {
  const auto library = find_gpu_plugin(place);
  if (library.empty()) {
    throw UserError(
        "device",
        spec.name(),
        "this build has no GPU plug-in: build with nvcc or hipcc, or set "
        "FETTLE_PLUGIN_PATH to the folder of libfettle_cuda.so");
  }
  const auto function =
      reinterpret_cast<PluginFunction>(open_plugin(library, kPluginSymbol));
  const Plugin& plugin = *function();
  if (plugin.version != kPluginVersion) {
    throw UserError(
        "device",
        library.string(),
        fmt::format(
            "expected a plug-in of version {}, found {}; build it again with "
            "this program",
            kPluginVersion,
            plugin.version));
  }
  if (plugin.refusal != nullptr) {
    throw UserError("device", library.string(), plugin.refusal);
  }
  return plugin;
}

void set_up_libtorch() {
  // cuDNN's attention plans anew for every length that it meets: 50 ms each on
  // an H200, where a layer's flash attention takes 0.2 ms.
  at::globalContext().setSDPUseCuDNN(false);
  // The allocator answers no question before, and a command may compute
  // nothing.
  at::globalContext().lazyInitDevice(at::kCUDA);
}

void require_card(const DeviceSpec& spec, const Plugin& plugin) {
  int count = 0;
  const char* why = plugin.count_devices(&count);
  if (count < 1) {
    throw UserError(
        "device",
        spec.name(),
        fmt::format(
            "no {} device found ({}); use --device cpu",
            plugin.backend,
            why == nullptr ? "none is installed" : why));
  }
  if (spec.index >= count) {
    throw UserError(
        "device",
        spec.name(),
        fmt::format(
            "expected one of cuda:0 to cuda:{}: this machine has {} {} "
            "device(s)",
            count - 1,
            count,
            plugin.backend));
  }
}

}  // namespace

at::Device open_device(
    const DeviceSpec& spec, const std::filesystem::path& place) {
  if (!spec.gpu) return at::kCPU;
  const Plugin* plugin = open_one().load();
  if (plugin == nullptr) plugin = &load(spec, place);
  require_card(spec, *plugin);
  // False when ATen was asked about CUDA before this.
  FETTLE_ASSERT(at::hasCUDA());
  set_up_libtorch();
  open_one().store(plugin);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(spec.index)};
}

int compute_capability(at::Device device) {
  const Plugin* plugin = open_one().load();
  if (device.is_cpu() || plugin == nullptr) return 0;
  return plugin->compute_capability(device.index());
}

// From ATen/cuda/CublasHandlePool.cpp, what the largest cards have for cuBLAS,
// and from c10/cuda/CUDACachingAllocator.h: tensors below 1 MiB share segments
// of 2 MiB, others of 20 MiB.
// Each of the two streams has unused tails of its own, and each thread that
// multiplies has its own workspace: the host's and, in a backward pass,
// autograd's.
std::int64_t library_bytes(at::Device device, LibraryUse use) {
  if (device.is_cpu()) return 0;
  const std::int64_t workspaces = use.backward ? 2 : 1;
  return (workspaces * 32 + 2 * (2 + 20)) << 20;
}

std::int64_t free_device_memory(at::Device device) {
  const auto [free, all] =
      at::getDeviceAllocator(device.type())->getMemoryInfo(device.index());
  return static_cast<std::int64_t>(free);
}

std::int64_t peak_device_memory(at::Device device) {
  return at::getDeviceAllocator(device.type())
      ->getDeviceStats(device.index())
      .reserved_bytes[0]
      .peak;
}

const Launchers& gpu_launchers() {
  const Plugin* plugin = open_one().load();
  return plugin == nullptr ? no_gpu_launchers() : plugin->launchers;
}

}  // namespace fettle::kernels
