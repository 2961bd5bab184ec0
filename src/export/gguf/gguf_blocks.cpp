// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "core/error.h"

namespace fettle::exporter {
namespace {

struct BlockInfo {
  BlockType type;
  std::string_view name;
  std::int64_t weights;
  std::int64_t bytes;
  std::uint32_t file_type;
};

// Those for codes by falling thrift.
constexpr std::array<BlockInfo, 11> kBlocks{{
    {BlockType::kTQ2_0, "TQ2_0", 256, 66, 37},
    {BlockType::kQ2_K, "Q2_K", 256, 84, 10},
    {BlockType::kQ3_K, "Q3_K", 256, 110, 11},
    {BlockType::kQ4_0, "Q4_0", 32, 18, 2},
    {BlockType::kQ4_K, "Q4_K", 256, 144, 14},
    {BlockType::kQ5_0, "Q5_0", 32, 22, 8},
    {BlockType::kQ8_0, "Q8_0", 32, 34, 7},
    {BlockType::kMXFP4, "MXFP4", 32, 17, 38},
    {BlockType::kBF16, "BF16", 1, 2, 32},
    {BlockType::kF16, "F16", 1, 2, 1},
    {BlockType::kF32, "F32", 1, 4, 0},
}};

const BlockInfo& info_of(BlockType type) {
  const auto* const found = std::ranges::find(kBlocks, type, &BlockInfo::type);
  FETTLE_ASSERT(found != kBlocks.end());
  return *found;
}

bool holds_range(BlockType type, const Levels& levels) {
  const auto within = [&](std::int64_t low, std::int64_t high) {
    return low <= levels.low && levels.high <= high;
  };
  switch (type) {
    case BlockType::kTQ2_0:
      return within(-1, 1);
    case BlockType::kQ2_K:
      return levels.code_bits <= 2;
    case BlockType::kQ3_K:
      return within(-4, 3);
    case BlockType::kQ4_0:
      return within(-8, 7);
    case BlockType::kQ4_K:
      return levels.code_bits <= 4;
    case BlockType::kQ5_0:
      return within(-16, 15);
    case BlockType::kQ8_0:
      return within(-128, 127);
    default:
      return false;
  }
}

// The codes of a block, which has one zero and scale.
struct CodeBlock {
  const std::uint8_t* codes;
  int zero;
  at::Half d;

  int level(std::int64_t i) const { return codes[i] - zero; }
};

std::uint8_t* put_half(std::uint8_t* out, at::Half value) {
  std::memcpy(out, &value.x, 2);
  return out + 2;
}

// d, then int8 [32].
void put_q8_0(const CodeBlock& in, std::uint8_t* out) {
  out = put_half(out, in.d);
  for (int i = 0; i < 32; ++i) {
    out[i] = static_cast<std::uint8_t>(in.level(i));
  }
}

// 16 bytes: weight j in the low half of byte j, weight j + 16 in the high one.
void put_nibbles(const CodeBlock& in, int middle, std::uint8_t* out) {
  for (int j = 0; j < 16; ++j) {
    out[j] = static_cast<std::uint8_t>(
        ((in.level(j) + middle) & 15) | ((in.level(j + 16) + middle) & 15)
                                            << 4);
  }
}

// d, then nibbles.
void put_q4_0(const CodeBlock& in, std::uint8_t* out) {
  put_nibbles(in, 8, put_half(out, in.d));
}

// d, 32 bits of which bit j is the fifth of weight j, nibbles.
void put_q5_0(const CodeBlock& in, std::uint8_t* out) {
  out = put_half(out, in.d);
  std::uint32_t fifth = 0;
  for (int j = 0; j < 32; ++j) {
    fifth |= static_cast<std::uint32_t>((in.level(j) + 16) >> 4) << j;
  }
  std::memcpy(out, &fifth, 4);
  put_nibbles(in, 16, out + 4);
}

// 64 bytes: of each 128 weights 32 bytes, with weight 32 k + l in bits 2 k of
// byte l. `middle` is added to levels; only the two lowest bits are kept.
void put_twos(const CodeBlock& in, int middle, std::uint8_t* out) {
  for (int l = 0; l < 64; ++l) {
    int byte = 0;
    for (int k = 0; k < 4; ++k) {
      const int level = in.level(l / 32 * 128 + 32 * k + l % 32);
      byte |= ((level + middle) & 3) << (2 * k);
    }
    out[l] = static_cast<std::uint8_t>(byte);
  }
}

// 16 bytes with scale and minimum of 16 weights, twos, d, d of the minima.
void put_q2_k(const CodeBlock& in, std::uint8_t* out) {
  std::memset(out, 1 | in.zero << 4, 16);
  put_twos(in, in.zero, out + 16);
  put_half(put_half(out + 80, in.d), in.d);
}

// 32 bytes, bit k of byte l the third bit of weight 32 k + l; twos; 12 bytes of
// scales, here all 33: 16 low halves, then the two high bits of each; d.
void put_q3_k(const CodeBlock& in, std::uint8_t* out) {
  for (int l = 0; l < 32; ++l) {
    int byte = 0;
    for (int k = 0; k < 8; ++k) {
      byte |= (in.level(32 * k + l) + 4) >> 2 << k;
    }
    out[l] = static_cast<std::uint8_t>(byte);
  }
  put_twos(in, 4, out + 32);
  std::memset(out + 96, 0x11, 8);
  std::memset(out + 104, 0xaa, 4);
  put_half(out + 108, in.d);
}

// d, d of the minima, 12 bytes of scales and minima of 32 weights, of which
// the first four have a byte each, the others halves; 128 bytes: of each 64
// weights 32 bytes, weight l low, l + 32 high.
void put_q4_k(const CodeBlock& in, std::uint8_t* out) {
  out = put_half(put_half(out, in.d), in.d);
  std::memset(out, 1, 4);
  std::memset(out + 4, in.zero, 4);
  std::memset(out + 8, 1 | in.zero << 4, 4);
  for (int b = 0; b < 128; ++b) {
    const std::uint8_t* const run = in.codes + b / 32 * 64 + b % 32;
    out[12 + b] = static_cast<std::uint8_t>(run[0] | run[32] << 4);
  }
}

// Twos, d.
void put_tq2_0(const CodeBlock& in, std::uint8_t* out) {
  put_twos(in, 1, out);
  put_half(out + 64, in.d);
}

using PutBlock = void (*)(const CodeBlock&, std::uint8_t*);

PutBlock writer_of(BlockType type) {
  switch (type) {
    case BlockType::kTQ2_0:
      return put_tq2_0;
    case BlockType::kQ2_K:
      return put_q2_k;
    case BlockType::kQ3_K:
      return put_q3_k;
    case BlockType::kQ4_0:
      return put_q4_0;
    case BlockType::kQ4_K:
      return put_q4_k;
    case BlockType::kQ5_0:
      return put_q5_0;
    case BlockType::kQ8_0:
      return put_q8_0;
    default:
      throw InternalError("codes have no plain type");
  }
}

}  // namespace

std::string_view block_name(BlockType type) { return info_of(type).name; }

std::int64_t block_weights(BlockType type) { return info_of(type).weights; }

std::int64_t row_bytes(BlockType type, std::int64_t cols) {
  const BlockInfo& info = info_of(type);
  FETTLE_ASSERT(cols % info.weights == 0);
  return cols / info.weights * info.bytes;
}

std::uint32_t file_type(BlockType type) { return info_of(type).file_type; }

BlockType plain_block(at::ScalarType type) {
  if (type == at::kBFloat16) return BlockType::kBF16;
  if (type == at::kHalf) return BlockType::kF16;
  FETTLE_ASSERT(type == at::kFloat);
  return BlockType::kF32;
}

Levels levels_of(const model::PackedHeader& h) {
  const std::int64_t group = h.groups() > 1 ? h.group : 0;
  if (h.kind != kernels::PackedKind::kInt) return {-1, 1, 2, group};
  const std::int64_t top = (std::int64_t{1} << h.bits) - 1;
  if (h.zeros) return {-top, top, h.bits, group};
  return {-(top + 1) / 2, (top - 1) / 2, h.bits, group};
}

std::optional<BlockType> exact_type(
    std::span<const Levels> matrices, std::int64_t cols) {
  for (const BlockInfo& info : kBlocks) {
    const auto fits = [&](const Levels& levels) {
      return holds_range(info.type, levels) && levels.group % info.weights == 0;
    };
    if (info.weights > 1 && cols % info.weights == 0 &&
        std::ranges::all_of(matrices, fits)) {
      return info.type;
    }
  }
  return std::nullopt;
}

at::Tensor encode_codes(BlockType type, const CodeMatrix& m) {
  const std::int64_t size = block_weights(type);
  FETTLE_ASSERT(m.group % size == 0 || m.groups() <= 1);
  const PutBlock put = writer_of(type);
  const std::int64_t bytes = info_of(type).bytes;
  at::Tensor result =
      at::empty({m.rows(), row_bytes(type, m.cols())}, at::kByte);
  const at::Tensor codes = m.codes.contiguous();
  const at::Tensor zeros = m.zeros.contiguous();
  const at::Tensor scales = m.scales.to(at::kHalf).contiguous();
  std::uint8_t* out = result.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t r = 0; r < m.rows(); ++r) {
    for (std::int64_t c = 0; c < m.cols(); c += size, out += bytes) {
      const std::int64_t g = r * m.groups() + c / m.group;
      put({codes.const_data_ptr<std::uint8_t>() + r * m.cols() + c,
           zeros.const_data_ptr<std::uint8_t>()[g],
           scales.const_data_ptr<at::Half>()[g]},
          out);
    }
  }
  return result;
}

// The scale, then nibbles as put_nibbles has them.
at::Tensor encode_mxfp4(const model::StoredForm::BlockBytes& blocks) {
  constexpr std::int64_t kHalf = 16;
  const std::int64_t rows = blocks.codes.size(0);
  const std::int64_t groups = blocks.scales.size(1);
  const at::Tensor bytes = blocks.codes.view({rows, groups, kHalf});
  const at::Tensor low = bytes.bitwise_and(15);
  const at::Tensor high = bytes.bitwise_right_shift(4);
  const at::Tensor codes = at::stack({low, high}, 3).flatten(2);
  const at::Tensor turned = codes.narrow(2, 0, kHalf) +
                            codes.narrow(2, kHalf, kHalf).bitwise_left_shift(4);
  return at::cat({blocks.scales.unsqueeze(2), turned}, 2).view({rows, -1});
}

at::Tensor encode_q8_0(const at::Tensor& values) {
  const at::Tensor x = values.to(at::kFloat).contiguous();
  at::Tensor result =
      at::empty({x.size(0), row_bytes(BlockType::kQ8_0, x.size(1))}, at::kByte);
  const float* in = x.const_data_ptr<float>();
  std::uint8_t* out = result.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t b = 0; b < x.numel() / 32; ++b, in += 32, out += 34) {
    float largest = 0;
    for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(in[i]));
    const at::Half d(largest / 127);
    const float step = d;
    put_half(out, d);
    for (int i = 0; i < 32; ++i) {
      const float level = step > 0 ? std::round(in[i] / step) : 0;
      out[2 + i] = static_cast<std::uint8_t>(
          static_cast<std::int8_t>(std::clamp(level, -128.0F, 127.0F)));
    }
  }
  return result;
}

}  // namespace fettle::exporter
