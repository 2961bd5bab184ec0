// SPDX-License-Identifier: Apache-2.0
#include "core/device.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <charconv>
#include <cstdlib>

#include "core/error.h"
#include "core/installed.h"

namespace fettle {

std::string DeviceSpec::name() const {
  return gpu ? fmt::format("cuda:{}", index) : "cpu";
}

DeviceSpec parse_device(std::string_view text) {
  constexpr std::string_view kCuda = "cuda";
  constexpr int kMostCards = 128;  // what libtorch's device index can hold
  if (text == "cpu") return {};
  if (text == kCuda) return {.gpu = true};
  if (text.starts_with("cuda:")) {
    const char* first = text.data() + kCuda.size() + 1;
    const char* last = text.data() + text.size();
    int index = -1;
    const auto [end, error] = std::from_chars(first, last, index);
    if (error == std::errc() && end == last && *first != '-' &&
        index < kMostCards) {
      return {.gpu = true, .index = index};
    }
  }
  throw UsageError(
      "device",
      fmt::format("--device {}", text),
      "expected cpu, cuda or cuda:N with N the number of a card, from 0");
}

std::filesystem::path gpu_plugin_place() {
  if (const char* place = std::getenv("FETTLE_PLUGIN_PATH")) return place;
  const auto program = program_folder();
  const auto installed = installed_libraries(program);
  return find_gpu_plugin(installed).empty() ? program : installed;
}

std::filesystem::path find_gpu_plugin(const std::filesystem::path& place) {
  std::error_code absent;
  if (std::filesystem::is_regular_file(place, absent)) return place;
  for (const char* name : {"libfettle_cuda.so", "libfettle_hip.so"}) {
    const auto library = place / name;
    if (std::filesystem::is_regular_file(library, absent)) return library;
  }
  return {};
}

void* open_plugin(
    const std::filesystem::path& library, const std::string& symbol) {
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_GLOBAL);
  void* address = handle ? dlsym(handle, symbol.c_str()) : nullptr;
  if (address == nullptr) {
    throw UserError(
        "device",
        library.string(),
        fmt::format(
            "expected a GPU plug-in of this program, but it cannot be opened: "
            "{}; build it again beside the program",
            dlerror()));
  }
  return address;
}

}  // namespace fettle
