// SPDX-License-Identifier: Apache-2.0
// Bits a weight against the least that independent trits can take.
#include <catch2/catch.hpp>
#include <cmath>

#include "kernels/trit_code.h"
#include "kernels/trit_huffman.h"
#include "trit_reference.h"

namespace fettle::kernels {
namespace {

using namespace test;

double rate(const TritCode& code, const at::Tensor& trits) {
  return 8.0 * static_cast<double>(stored_bytes(code)) /
         static_cast<double>(trits.numel());
}

// Σ count · 2^-length over lengths and counts: the least cost by trying all
// lengths that form a complete code, for few symbols.
std::int64_t least_cost(
    std::vector<std::int64_t> counts, std::size_t first, int left, int bits) {
  if (first == counts.size()) return left == 0 ? 0 : 1 << 20;
  std::int64_t best = 1 << 20;
  for (int length = 1; length <= bits; ++length) {
    const int taken = 1 << (bits - length);
    if (taken > left) continue;
    best = std::min(
        best,
        counts[first] * length +
            least_cost(counts, first + 1, left - taken, bits));
  }
  return best;
}

}  // namespace

TEST_CASE("wide rows of coded trits come close to their entropy") {
  for (const double zero : {1.0 / 3, 0.5, 0.7, 0.857, 0.885, 0.95, 0.99}) {
    for (const double share : {0.5, 0.8, 1.0}) {
      const TritOdds odds{zero, (1 - zero) * share};
      const at::Tensor trits = seeded_trits(512, 4096, odds, 5);
      const double least = trit_entropy(odds);
      CAPTURE(zero, share, least);
      // A row loses half a byte at its end and the rest of a word, its length
      // takes a byte.
      const double end_of_row = 3 * 8.0 / 4096;
      // 1024 words of odds as alike as those of a tree can be, which has words
      // for trits that never come, too.
      if (share < 1.0) {
        CHECK(
            rate(encode_trits(kWords, trits), trits) <
            least * (zero < 0.9 ? 1.1 : 1.3) + end_of_row);
      }
      CHECK(
          rate(encode_trits(kHuffman, trits), trits) <
          least * 1.01 + end_of_row);
    }
  }
}

TEST_CASE("coded trits keep the design's promise at 88.5 % zeros") {
  const at::Tensor trits = seeded_trits(2048, 4096, {0.885, 0.0575}, 6);
  CHECK(rate(encode_trits(kWords, trits), trits) < 0.68);
  CHECK(rate(encode_trits(kHuffman, trits), trits) < 0.64);
}

TEST_CASE("small coded matrices pay little for table and rows") {
  const at::Tensor trits = seeded_trits(256, 128, {0.885, 0.0575}, 7);
  CHECK(rate(encode_trits(kHuffman, trits), trits) < 0.73);
  CHECK(rate(encode_trits(kWords, trits), trits) < 0.85);
  const at::Tensor few = seeded_trits(2, 20, {0.5, 0.25}, 8);
  CHECK(stored_bytes(encode_trits(kHuffman, few)) < 26);
}

TEST_CASE("constant trits take next to nothing") {
  const at::Tensor zeros = at::zeros({64, 4480}, at::kChar);
  // A row is 20 words of 224 zeros, in 25 bytes.
  const TritCode words = encode_trits(kWords, zeros);
  CHECK(words.codes.numel() == 64 * 25);
  CHECK(rate(words, zeros) < 0.05);
  CHECK(rate(encode_trits(kHuffman, zeros), zeros) < 0.02);
}

TEST_CASE("codes of bounded length are the best of all such codes") {
  std::int64_t state = 1;
  for (int round = 0; round < 200; ++round) {
    std::vector<std::int64_t> counts;
    const int symbols = 2 + round % 6, bits = 3 + round % 2;
    for (int i = 0; i < symbols; ++i) {
      state = (state * 48271) % 2147483647;
      // Steep enough that the bound matters; equal ones are among them.
      counts.push_back(1 + (state % 64 >> state / 64 % 7));
    }
    const std::vector<int> lengths = huffman_lengths(counts, bits);
    std::int64_t cost = 0;
    for (std::size_t i = 0; i < counts.size(); ++i) {
      cost += counts[i] * lengths[i];
    }
    CAPTURE(round);
    CHECK(huffman_codes(lengths, bits).size() == counts.size());
    CHECK(cost == least_cost(counts, 0, 1 << bits, bits));
    // One that never occurs changes nothing and has no code.
    counts.insert(counts.begin() + 1, 0);
    std::vector<int> more = huffman_lengths(counts, bits);
    CHECK(more[1] == 0);
    more.erase(more.begin() + 1);
    CHECK(more == lengths);
  }
}

}  // namespace fettle::kernels
