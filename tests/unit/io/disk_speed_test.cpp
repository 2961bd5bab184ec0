// SPDX-License-Identifier: Apache-2.0
#include "io/disk_speed.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <string>

#include "core/error.h"
#include "fixtures.h"

using namespace fettle;

TEST_CASE("a read is timed, whole blocks or not") {
  const io::TemporaryFolder folder;
  const auto file = folder.path() / "file";
  std::ofstream(file) << std::string((std::size_t{4} << 20) + 5, 'x');
  // More than the file has is all of it; no disk or memory is beyond 1 PB/s.
  for (const std::uint64_t bytes : {1ull, 1ull << 22, 1ull << 30}) {
    const double speed = io::measure_read(file, bytes);
    CHECK(speed > 0.0);
    CHECK(speed < 1e15);
  }
}

TEST_CASE("a file that can't be timed is refused") {
  const io::TemporaryFolder folder;
  const auto file = folder.path() / "file";
  CHECK_THROWS_AS(io::measure_read(file, 1), UserError);
  std::ofstream(file).close();
  CHECK_THROWS_WITH(
      io::measure_read(file, 1), Catch::Matchers::Contains("empty"));
}
