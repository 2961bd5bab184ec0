// SPDX-License-Identifier: Apache-2.0
// Blocks against bytes put together by hand; tests/hf reads whole files with
// the gguf package.
#include "export/gguf/gguf_blocks.h"

#include <catch2/catch.hpp>
#include <vector>

#include "core/error.h"

namespace fettle::exporter {
namespace {

using kernels::PackedKind;
using Bytes = std::vector<int>;

// One row in one group with scale 0.5, which is 0x3800 in 16 bits.
CodeMatrix row_of(std::int64_t bits, int zero, at::Tensor codes) {
  CodeMatrix m;
  m.bits = bits;
  m.group = codes.numel();
  m.codes = codes.to(at::kByte).view({1, -1});
  m.scales = at::full({1, 1}, 0.5F);
  m.zeros = at::full({1, 1}, zero, at::kByte);
  return m;
}

at::Tensor ramp(std::int64_t n, std::int64_t below) {
  return at::arange(n, at::kLong).remainder(below);
}

Bytes encoded(BlockType type, const CodeMatrix& m) {
  const at::Tensor stored = encode_codes(type, m);
  const auto* const at = stored.const_data_ptr<std::uint8_t>();
  Bytes bytes(at, at + stored.numel());
  const auto values = decode_blocks(
      type,
      {reinterpret_cast<const std::byte*>(at), bytes.size()},
      m.rows(),
      m.cols());
  REQUIRE(values.equal(values_of(m)));
  return bytes;
}

TEST_CASE("Q8_0 is a scale and signed bytes") {
  const Bytes bytes =
      encoded(BlockType::kQ8_0, row_of(8, 128, at::arange(112, 144)));
  REQUIRE(bytes.size() == 34);
  REQUIRE(Bytes(bytes.begin(), bytes.begin() + 4) == Bytes{0, 0x38, 240, 241});
  REQUIRE(bytes[2 + 16] == 0);
  REQUIRE(bytes[2 + 31] == 15);
}

TEST_CASE("Q4_0 has weights 16 apart in one byte") {
  const Bytes bytes =
      encoded(BlockType::kQ4_0, row_of(4, 8, ramp(32, 16).add(0)));
  REQUIRE(bytes.size() == 18);
  for (int j = 0; j < 16; ++j) REQUIRE(bytes[2 + j] == 17 * j);
  // Fewer bits are moved to the middle.
  const Bytes two = encoded(BlockType::kQ4_0, row_of(2, 1, ramp(32, 4)));
  REQUIRE(
      Bytes(two.begin() + 2, two.begin() + 6) == Bytes{0x77, 0x88, 0x99, 0xaa});
}

TEST_CASE("Q5_0 keeps the fifth bits in a word") {
  // Levels -15 to 15 about a zero of 15, with 16 added: 1 to 16.
  const Bytes bytes = encoded(BlockType::kQ5_0, row_of(4, 15, ramp(32, 16)));
  REQUIRE(bytes.size() == 22);
  // Only code 15, level 0, has the bit.
  REQUIRE(
      Bytes(bytes.begin() + 2, bytes.begin() + 6) ==
      Bytes{0x00, 0x80, 0x00, 0x80});
  REQUIRE(bytes[6] == 0x11);
  REQUIRE(bytes[6 + 15] == 0x00);
}

TEST_CASE("Q2_K has four planes of two bits") {
  at::Tensor codes = at::zeros({256}, at::kLong);
  codes[0] = 1;
  codes[32] = 2;
  codes[64] = 3;
  codes[96 + 5] = 1;
  codes[128 + 7] = 3;
  const Bytes bytes = encoded(BlockType::kQ2_K, row_of(2, 2, codes));
  REQUIRE(bytes.size() == 84);
  for (int s = 0; s < 16; ++s) REQUIRE(bytes[s] == 0x21);
  REQUIRE(bytes[16] == (1 | 2 << 2 | 3 << 4));
  REQUIRE(bytes[16 + 5] == 1 << 6);
  REQUIRE(bytes[16 + 32 + 7] == 3);
  REQUIRE(Bytes(bytes.begin() + 80, bytes.end()) == Bytes{0, 0x38, 0, 0x38});
}

TEST_CASE("Q3_K has a third bit apart and scales of 33") {
  at::Tensor codes = at::full({256}, 4, at::kLong);  // level 0
  codes[3] = 7;                                      // 7: 3, and the bit
  codes[224 + 9] = 0;                                // 0: no bit
  const Bytes bytes = encoded(BlockType::kQ3_K, row_of(3, 4, codes));
  REQUIRE(bytes.size() == 110);
  REQUIRE(bytes[3] == 0xff);
  REQUIRE(bytes[9] == 0x7f);
  REQUIRE(bytes[32 + 3] == 3);
  REQUIRE(bytes[32 + 9] == 0);
  REQUIRE(bytes[96] == 0x11);
  REQUIRE(bytes[104] == 0xaa);
}

TEST_CASE("Q4_K spreads scales and minima over twelve bytes") {
  const Bytes bytes = encoded(BlockType::kQ4_K, row_of(4, 13, ramp(256, 16)));
  REQUIRE(bytes.size() == 144);
  REQUIRE(Bytes(bytes.begin(), bytes.begin() + 4) == Bytes{0, 0x38, 0, 0x38});
  for (int s = 0; s < 4; ++s) {
    REQUIRE(bytes[4 + s] == 1);
    REQUIRE(bytes[8 + s] == 13);
    REQUIRE(bytes[12 + s] == 0xd1);
  }
  REQUIRE(bytes[16 + 1] == 0x11);
  REQUIRE(bytes[16 + 15] == 0xff);
}

TEST_CASE("TQ2_0 has planes of trits") {
  at::Tensor codes = at::ones({256}, at::kLong);
  codes[0] = 0;
  codes[32] = 2;
  const Bytes bytes = encoded(BlockType::kTQ2_0, row_of(2, 1, codes));
  REQUIRE(bytes.size() == 66);
  REQUIRE(bytes[0] == (0 | 2 << 2 | 1 << 4 | 1 << 6));
  REQUIRE(bytes[1] == 0x55);
  REQUIRE(Bytes(bytes.begin() + 64, bytes.end()) == Bytes{0, 0x38});
}

TEST_CASE("Each block has the scale and zero of its group") {
  CodeMatrix m;
  m.bits = 4;
  m.group = 32;
  m.codes = ramp(128, 16).to(at::kByte).view({2, 64});
  m.scales = at::tensor({0.5F, 1.0F, 2.0F, -4.0F}).view({2, 2});
  m.zeros = at::tensor({8, 3, 0, 15}, at::kLong).to(at::kByte).view({2, 2});
  const Bytes bytes = encoded(BlockType::kQ5_0, m);
  REQUIRE(bytes.size() == 4 * 22);
  REQUIRE(bytes[3 * 22 + 1] == 0xc4);  // -4 in 16 bits: 0xc400
}

model::PackedHeader header(
    std::int64_t bits, bool zeros, std::int64_t group, std::int64_t cols) {
  return {
      .kind = bits == 0 ? PackedKind::kTernary : PackedKind::kInt,
      .bits = bits,
      .rows = 1,
      .cols = cols,
      .group = group,
      .zeros = zeros};
}

TEST_CASE("The type of fewest bits that holds the values is chosen") {
  struct Choice {
    std::int64_t bits;
    bool zeros;
    std::int64_t group, cols;
    std::string type;
  };
  const Choice c = GENERATE(
      Choice{0, false, 512, 512, "TQ2_0"},
      Choice{0, false, 256, 512, "TQ2_0"},
      Choice{0, false, 128, 512, "Q4_0"},
      Choice{2, false, 256, 256, "Q2_K"},
      Choice{2, true, 256, 256, "Q2_K"},
      Choice{2, true, 32, 256, "Q4_0"},
      Choice{3, false, 256, 256, "Q3_K"},
      Choice{3, true, 256, 256, "Q4_0"},
      Choice{4, false, 32, 256, "Q4_0"},
      Choice{4, true, 256, 256, "Q4_K"},
      Choice{4, true, 128, 256, "Q5_0"},
      Choice{4, true, 96, 96, "Q5_0"},
      Choice{8, false, 64, 128, "Q8_0"},
      Choice{8, true, 64, 128, "none"},
      Choice{4, false, 16, 64, "none"},
      Choice{4, false, 48, 48, "none"});
  const Levels levels = levels_of(header(c.bits, c.zeros, c.group, c.cols));
  const auto type = exact_type(std::span(&levels, 1), c.cols);
  REQUIRE((type ? std::string(block_name(*type)) : "none") == c.type);
}

TEST_CASE("One type holds all experts of a stack") {
  const std::vector<Levels> levels{
      levels_of(header(2, true, 256, 256)),
      levels_of(header(4, false, 64, 256))};
  REQUIRE(exact_type(levels, 256) == BlockType::kQ4_0);
  const std::vector<Levels> wider{
      levels[0], levels_of(header(8, false, 64, 256))};
  REQUIRE(exact_type(wider, 256) == BlockType::kQ8_0);
}

TEST_CASE("The nearest of Q8_0 is within half a step") {
  const at::Tensor values = at::randn({3, 64});
  const at::Tensor stored = encode_q8_0(values);
  const at::Tensor back = decode_blocks(
      BlockType::kQ8_0,
      {static_cast<const std::byte*>(stored.data_ptr()), stored.nbytes()},
      3,
      64);
  const at::Tensor step = values.view({-1, 32}).abs().amax(1, true) / 127;
  const at::Tensor error = (values - back).view({-1, 32}).abs();
  REQUIRE((error <= 0.51 * step).all().item<bool>());
  REQUIRE(encode_q8_0(at::zeros({1, 32})).count_nonzero().item<int>() == 0);
}

TEST_CASE("Plain types are numbers one by one") {
  REQUIRE(plain_block(at::kFloat) == BlockType::kF32);
  REQUIRE(plain_block(at::kHalf) == BlockType::kF16);
  REQUIRE(plain_block(at::kBFloat16) == BlockType::kBF16);
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const at::Tensor values = at::randn({2, 3}).to(type);
    const std::span bytes(
        static_cast<const std::byte*>(values.data_ptr()), values.nbytes());
    REQUIRE(decode_blocks(plain_block(type), bytes, 2, 3)
                .equal(values.to(at::kFloat)));
  }
  CodeMatrix m = row_of(4, 8, ramp(32, 16));
  REQUIRE_THROWS_AS(encode_codes(BlockType::kF32, m), InternalError);
}

}  // namespace
}  // namespace fettle::exporter
