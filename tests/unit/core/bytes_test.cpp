// SPDX-License-Identifier: Apache-2.0
#include "core/bytes.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using fettle::format_bytes;
using fettle::parse_bytes;

TEST_CASE("sizes are read in binary and decimal units") {
  CHECK(parse_bytes("6GiB") == 6LL * 1024 * 1024 * 1024);
  CHECK(parse_bytes("1.5GB") == 1500000000);
  CHECK(parse_bytes("512MiB") == 512 * 1048576);
  CHECK(parse_bytes("4096") == 4096);
  CHECK(parse_bytes("0") == 0);
}

TEST_CASE("what is no size is refused") {
  for (const char* text :
       {"", "GiB", "-1GiB", "1gib", "1 GiB", "nan", "inf", "9e99", "8EiB"}) {
    CHECK_THROWS_AS(parse_bytes(text), fettle::UsageError);
  }
}

TEST_CASE("sizes are printed with three significant digits") {
  CHECK(format_bytes(0) == "0 B");
  CHECK(format_bytes(1023) == "1023 B");
  CHECK(format_bytes(1536) == "1.50 KiB");
  CHECK(format_bytes(28955704) == "27.6 MiB");
  CHECK(format_bytes(128LL << 30) == "128 GiB");
}
