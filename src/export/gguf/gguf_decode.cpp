// SPDX-License-Identifier: Apache-2.0
// Values of GGUF blocks, weight by weight, by what ggml's own layouts say.
#include <cmath>
#include <cstring>

#include "core/error.h"
#include "export/gguf/gguf_blocks.h"

namespace fettle::exporter {
namespace {

using Bytes = const std::uint8_t*;

float half_at(Bytes at) {
  std::uint16_t bits;
  std::memcpy(&bits, at, 2);
  return at::Half(bits, at::Half::from_bits());
}

int two_bits(Bytes planes, int w) {
  return planes[w / 128 * 32 + w % 32] >> (w % 128 / 32 * 2) & 3;
}

int nibble(Bytes bytes, int w) { return bytes[w % 16] >> (w / 16 * 4) & 15; }

float of_q8_0(Bytes b, int w) {
  return half_at(b) * static_cast<float>(static_cast<std::int8_t>(b[2 + w]));
}

float of_q4_0(Bytes b, int w) {
  return half_at(b) * static_cast<float>(nibble(b + 2, w) - 8);
}

float of_q5_0(Bytes b, int w) {
  const int high = b[2 + w / 8] >> (w % 8) & 1;
  return half_at(b) * static_cast<float>((nibble(b + 6, w) | high << 4) - 16);
}

float of_q2_k(Bytes b, int w) {
  const int scale = b[w / 16] & 15, minimum = b[w / 16] >> 4;
  return half_at(b + 80) * static_cast<float>(scale * two_bits(b + 16, w)) -
         half_at(b + 82) * static_cast<float>(minimum);
}

float of_q3_k(Bytes b, int w) {
  const int s = w / 16;
  const int low = b[96 + s % 8] >> (s / 8 * 4) & 15;
  const int high = b[104 + s % 4] >> (s / 4 * 2) & 3;
  const int third = b[w % 32] >> (w / 32) & 1;
  const int q = two_bits(b + 32, w) | third << 2;
  return half_at(b + 108) *
         static_cast<float>(((low | high << 4) - 32) * (q - 4));
}

float of_q4_k(Bytes b, int w) {
  const Bytes scales = b + 4;
  const int s = w / 32;
  int scale, minimum;
  if (s < 4) {
    scale = scales[s] & 63;
    minimum = scales[s + 4] & 63;
  } else {
    scale = (scales[s + 4] & 15) | scales[s - 4] >> 6 << 4;
    minimum = scales[s + 4] >> 4 | scales[s] >> 6 << 4;
  }
  const int q = b[16 + w / 64 * 32 + w % 32] >> (w % 64 / 32 * 4) & 15;
  return half_at(b) * static_cast<float>(scale * q) -
         half_at(b + 2) * static_cast<float>(minimum);
}

float of_tq2_0(Bytes b, int w) {
  return half_at(b + 64) * static_cast<float>(two_bits(b, w) - 1);
}

float of_mxfp4(Bytes b, int w) {
  const int code = nibble(b + 1, w), exponent = code >> 1 & 3, half = code & 1;
  const double size =
      exponent == 0 ? 0.5 * half : std::ldexp(1 + 0.5 * half, exponent - 1);
  return static_cast<float>(std::ldexp(code >= 8 ? -size : size, b[0] - 127));
}

float of_f32(Bytes b, int) {
  float value;
  std::memcpy(&value, b, 4);
  return value;
}

float of_f16(Bytes b, int) { return half_at(b); }

float of_bf16(Bytes b, int) {
  std::uint16_t bits;
  std::memcpy(&bits, b, 2);
  return at::BFloat16(bits, at::BFloat16::from_bits());
}

float (*reader_of(BlockType type))(Bytes, int) {
  switch (type) {
    case BlockType::kTQ2_0:
      return of_tq2_0;
    case BlockType::kQ2_K:
      return of_q2_k;
    case BlockType::kQ3_K:
      return of_q3_k;
    case BlockType::kQ4_0:
      return of_q4_0;
    case BlockType::kQ4_K:
      return of_q4_k;
    case BlockType::kQ5_0:
      return of_q5_0;
    case BlockType::kQ8_0:
      return of_q8_0;
    case BlockType::kMXFP4:
      return of_mxfp4;
    case BlockType::kF32:
      return of_f32;
    case BlockType::kF16:
      return of_f16;
    case BlockType::kBF16:
      return of_bf16;
  }
  throw InternalError("a block type without a reader");
}

}  // namespace

at::Tensor decode_blocks(
    BlockType type,
    std::span<const std::byte> bytes,
    std::int64_t rows,
    std::int64_t cols) {
  FETTLE_ASSERT(std::ssize(bytes) == rows * row_bytes(type, cols));
  const auto value = reader_of(type);
  const std::int64_t size = block_weights(type);
  const std::int64_t step = row_bytes(type, size);
  at::Tensor result = at::empty({rows, cols}, at::kFloat);
  float* out = result.mutable_data_ptr<float>();
  auto block = reinterpret_cast<Bytes>(bytes.data());
  for (std::int64_t b = 0; b < rows * cols / size; ++b, block += step) {
    for (int w = 0; w < size; ++w) *out++ = value(block, w);
  }
  return result;
}

}  // namespace fettle::exporter
