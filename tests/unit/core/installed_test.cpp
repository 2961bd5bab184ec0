// SPDX-License-Identifier: Apache-2.0
#include "core/installed.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "core/device.h"

TEST_CASE("an installed program finds its scripts and plug-ins by its prefix") {
  const auto prefix =
      std::filesystem::temp_directory_path() / "fettle_installed_test";
  std::filesystem::remove_all(prefix);
  const auto program = prefix / "bin";
  std::filesystem::create_directories(program);

  CHECK(
      fettle::find_script(program, "/checkout/tools", "render.py") ==
      "/checkout/tools/render.py");
  std::filesystem::create_directories(prefix / "share/fettle");
  std::ofstream(prefix / "share/fettle/render.py") << "script";
  CHECK(
      fettle::find_script(program, "/checkout/tools", "render.py") ==
      prefix / "share/fettle/render.py");

  CHECK(fettle::installed_libraries(program) == prefix / "lib/fettle");
  std::filesystem::remove_all(prefix);
}
