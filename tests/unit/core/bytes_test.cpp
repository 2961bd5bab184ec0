// SPDX-License-Identifier: Apache-2.0
#include "core/bytes.h"

#include <catch2/catch.hpp>

using fettle::format_bytes;

TEST_CASE("sizes are printed with three significant digits") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1536) == "1.50 KiB");
  CHECK(format_bytes(28955704) == "27.6 MiB");
  CHECK(format_bytes(128LL << 30) == "128 GiB");
}
