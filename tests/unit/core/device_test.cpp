// SPDX-License-Identifier: Apache-2.0
#include "core/device.h"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

#include "core/error.h"

using Catch::Matchers::Contains;
using fettle::parse_device;

TEST_CASE("devices are read") {
  CHECK(parse_device("cpu") == fettle::DeviceSpec{});
  CHECK(parse_device("cuda") == fettle::DeviceSpec{.gpu = true});
  CHECK(parse_device("cuda:0") == fettle::DeviceSpec{.gpu = true});
  CHECK(parse_device("cuda:12") == fettle::DeviceSpec{true, 12});
  CHECK(parse_device("cpu").name() == "cpu");
  CHECK(parse_device("cuda:3").name() == "cuda:3");
}

TEST_CASE("what is no device is refused") {
  for (const char* text :
       {"",
        "CPU",
        "cpu:0",
        "gpu",
        "cuda:",
        "cuda:-1",
        "cuda:+1",
        "cuda: 1",
        "cuda:1x",
        "cuda:128",
        "cuda:99999999999"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_device(text), fettle::UsageError);
  }
}

TEST_CASE("a plug-in is found in a folder or by its own name") {
  const auto folder =
      std::filesystem::temp_directory_path() / "fettle_device_test";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  CHECK(fettle::find_gpu_plugin(folder).empty());
  CHECK(fettle::find_gpu_plugin(folder / "absent").empty());
  const auto library = folder / "libfettle_hip.so";
  std::ofstream(library) << "no library";
  CHECK(fettle::find_gpu_plugin(folder) == library);
  CHECK(fettle::find_gpu_plugin(library) == library);
  CHECK_THROWS_WITH(
      fettle::open_plugin(library, "symbol"),
      Contains("libfettle_hip.so") && Contains("cannot be opened"));
  std::filesystem::remove_all(folder);
}

TEST_CASE("a library without the symbol is no plug-in") {
  CHECK_THROWS_AS(
      fettle::open_plugin("libm.so.6", "fettle_no_such_symbol"),
      fettle::UserError);
}

TEST_CASE("plug-ins are looked for beside the program unless told otherwise") {
  unsetenv("FETTLE_PLUGIN_PATH");
  const auto program = std::filesystem::read_symlink("/proc/self/exe");
  CHECK(fettle::gpu_plugin_place() == program.parent_path());
  setenv("FETTLE_PLUGIN_PATH", "/some/where", 1);
  CHECK(fettle::gpu_plugin_place() == "/some/where");
  unsetenv("FETTLE_PLUGIN_PATH");
}
