// SPDX-License-Identifier: Apache-2.0
#include "core/error.h"

#include <catch2/catch.hpp>
#include <string>

#include "core/one_line.h"

using fettle::one_line;

TEST_CASE("A message is one line") {
  const fettle::UserError error("data", "a\nb", "found \"\t\"");
  CHECK(std::string(error.what()) == "[data] a?b: found \"?\"");
}

TEST_CASE("Numbers in a message are ones that people can read") {
  CHECK(one_line("12 of 340282346638528859") == "12 of 340282346638528859");
  CHECK(
      one_line("in 0.5 - " + std::string(309, '1') + ".000") ==
      "in 0.5 - 11111111...(309 digits).000");
  CHECK(one_line(std::string(24, '7')) == std::string(24, '7'));
  CHECK(one_line(std::string(25, '7')) == "77777777...(25 digits)");
}
