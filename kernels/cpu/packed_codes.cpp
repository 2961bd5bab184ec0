// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/cpu/packed.h"
#include "kernels/cpu/parallel.h"

namespace fettle::kernels::cpu {
namespace {

constexpr std::uint64_t kEveryByte = 0x0101010101010101;
constexpr std::uint64_t kEverySecond = 0x0001000100010001;
constexpr std::uint64_t kEveryFourth = 0x0000000100000001;

// Eight bytes of `bits` bits each, moved together: neighbours join to pairs,
// pairs to fours, fours to eight.
std::uint64_t joined(std::uint64_t codes, int bits) {
  codes |= codes >> (8 - bits);
  codes &= kEverySecond * ((1u << 2 * bits) - 1);
  codes |= codes >> 2 * (8 - bits);
  codes &= kEveryFourth * ((std::uint64_t{1} << 4 * bits) - 1);
  return codes | codes >> 4 * (8 - bits);
}

bool pack_ints(
    const std::uint8_t* codes, std::int64_t n, int bits, std::uint8_t* to) {
  std::uint64_t found = 0;
  for (; n > 0; n -= 8, codes += 8, to += bits) {
    std::uint64_t eight = 0;
    std::memcpy(&eight, codes, static_cast<std::size_t>(std::min(n, 8L)));
    found |= eight;
    const std::uint64_t packed = joined(eight, bits);
    std::memcpy(to, &packed, static_cast<std::size_t>(bits));
  }
  return (found & ~(kEveryByte * ((1u << bits) - 1))) == 0;
}

bool pack_trits(const std::uint8_t* codes, std::int64_t n, std::uint8_t* to) {
  bool fits = true;
  for (; n > 0; n -= 5, codes += 5, ++to) {
    unsigned sum = 0;
    for (std::int64_t i = 4; i >= 0; --i) {
      const unsigned code = i < n ? codes[i] : 1;
      fits = fits && code <= 2;
      sum = 3 * sum + code;
    }
    *to = static_cast<std::uint8_t>(sum);
  }
  return fits;
}

}  // namespace

bool pack_codes(const PackCodesArgs& args) {
  std::atomic<bool> fit = true;
  parallel_rows(args.rows, args.cols, [&](auto begin, auto end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::uint8_t* codes = args.codes + r * args.cols;
      std::uint8_t* packed = args.packed + r * args.row_bytes;
      const bool row_fits = args.kind == PackedKind::kInt
                                ? pack_ints(codes, args.cols, args.bits, packed)
                                : pack_trits(codes, args.cols, packed);
      if (!row_fits) fit = false;
    }
  });
  return fit;
}

}  // namespace fettle::kernels::cpu
