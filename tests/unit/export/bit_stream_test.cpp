// SPDX-License-Identifier: Apache-2.0
#include "export/codes/bit_stream.h"

#include <catch2/catch.hpp>
#include <vector>

namespace fettle::exporter {
namespace {

at::Tensor codes_of(const std::vector<std::int64_t>& codes) {
  return at::tensor(codes, at::kLong).to(at::kByte).unsqueeze(0);
}

at::Tensor words_of(const std::vector<std::int64_t>& words) {
  return at::tensor(words, at::kLong).to(at::kInt).unsqueeze(0);
}

struct Case {
  std::int64_t bits;
  std::vector<std::int64_t> codes;
  std::vector<std::int64_t> words;
};

TEST_CASE("Codes lie in words without gaps, the first lowest") {
  const Case c = GENERATE(
      Case{4, {0, 1, 2, 3, 4, 5, 6, 7}, {0x76543210}},
      Case{4, {15}, {15}},
      Case{8, {1, 2, 3, 4, 255}, {0x04030201, 255}},
      Case{2, {3, 2, 1, 0, 3}, {0b1100011011}},
      // The eleventh code crosses into the second word.
      Case{
          3,
          {1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4},
          {static_cast<std::int32_t>(0xd11f58d1), 8}});
  const at::Tensor codes = codes_of(c.codes);
  const at::Tensor words = words_of(c.words);
  REQUIRE(stream_words(codes.size(1), c.bits) == words.size(1));
  REQUIRE(pack_stream(codes, c.bits).equal(words));
  REQUIRE(unpack_stream(words, c.bits, codes.size(1)).equal(codes));
}

TEST_CASE("Rows are words of their own") {
  const at::Tensor codes = at::cat({codes_of({1, 2, 3}), codes_of({4, 5, 6})});
  const at::Tensor words = at::cat({words_of({0x321}), words_of({0x654})});
  REQUIRE(pack_stream(codes, 4).equal(words));
  REQUIRE(unpack_stream(words, 4, 3).equal(codes));
  // Columns of a transposed matrix are packed as they lie in it.
  REQUIRE(pack_stream(codes.t().contiguous().t(), 4).equal(words));
}

TEST_CASE("Nothing takes no word") {
  REQUIRE(pack_stream(at::empty({3, 0}, at::kByte), 4).size(1) == 0);
}

}  // namespace
}  // namespace fettle::exporter
