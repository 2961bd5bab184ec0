// SPDX-License-Identifier: Apache-2.0
#include "core/size_option.h"

#include <catch2/catch.hpp>

#include "core/error.h"

using fettle::parse_size;

TEST_CASE("sizes are read in binary and decimal units") {
  CHECK(parse_size("6GiB", "--ram") == 6LL * 1024 * 1024 * 1024);
  CHECK(parse_size("1.5GB", "--ram") == 1500000000);
  CHECK(parse_size("512MiB", "--ram") == 512 * 1048576);
  CHECK(parse_size("4096B", "--ram") == 4096);
  CHECK(parse_size("0", "--ram") == 0);
}

TEST_CASE("sizes are read as other tools write them") {
  constexpr std::int64_t kGiB = 1 << 30;
  for (const char* text :
       {"12G", "12g", "12GiB", "12 GiB", "12gib", " 12 G ", "12288M"}) {
    CAPTURE(text);
    CHECK(parse_size(text, "--ram") == 12 * kGiB);
  }
  CHECK(parse_size("12GB", "--ram") == 12'000'000'000);
  CHECK(parse_size("12 gb", "--ram") == 12'000'000'000);
  CHECK(parse_size("3mib", "--ram") == 3 << 20);
  CHECK(parse_size("64k", "--ram") == 65536);
  CHECK(parse_size("1T", "--ram") == kGiB * 1024);
}

TEST_CASE("what is no size is refused") {
  for (const char* text :
       {"",
        "GiB",
        "-1GiB",
        "1 2GiB",
        "1GiBs",
        "12,5GiB",
        "nanGiB",
        "inf",
        "9e99",
        "8EiB",
        "5000000TiB"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(parse_size(text, "--ram"), fettle::UsageError);
  }
}

TEST_CASE("a number without a unit is asked for one") {
  CHECK_THROWS_WITH(
      parse_size("12", "--ram"),
      "[size] --ram: expected a unit behind 12: write 12GiB (of 2^30 bytes), "
      "12GB (of 10^9) or 12B");
  CHECK_THROWS_WITH(
      parse_size("lots", "--ram"), Catch::Contains("found 'lots'"));
}
