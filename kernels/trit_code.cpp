// SPDX-License-Identifier: Apache-2.0
#include "kernels/trit_code.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "kernels/cpu/trit_code.h"
#include "kernels/trit_bits.h"
#include "kernels/trit_huffman.h"
#include "kernels/trit_table.h"

namespace fettle::kernels {
namespace {

static_assert(std::endian::native == std::endian::little);

// No tree of 1024 words with their lengths is longer.
constexpr std::int64_t kMostStoredTable = 1024;

// Smaller matrices may do better with a smaller table. As its words are
// shorter, it is read more slowly, and has to take this many per cent of the
// bytes.
constexpr std::int64_t kFewTrits = 1 << 18;
constexpr std::int64_t kWorthSlower = 99;

bool is_trit_code(PackedKind kind) {
  return kind == PackedKind::kTernaryWords ||
         kind == PackedKind::kTernaryHuffman;
}

std::int64_t most_words(PackedKind kind) {
  return kind == PackedKind::kTernaryWords ? kTritCodeWords : kTritHuffmanWords;
}

std::int64_t trit_table_bytes(PackedKind kind) {
  return kind == PackedKind::kTernaryWords ? kTritWordsBytes
                                           : kTritHuffmanBytes;
}

[[noreturn]] void refuse_trit_table(const char* found) {
  throw UserError(
      "kernels",
      "coded ternary matrix",
      std::string("its table is damaged: ") + found +
          "; copy or make the file anew");
}

// A matrix cut into the words of one tree, and what that takes.
struct EncodedTrits {
  cpu::TritWords rows;
  cpu::TritCodes codes;
  std::vector<std::int64_t> row_begin;
  std::vector<std::uint8_t> table;

  std::int64_t bytes() const {
    return row_begin.back() + static_cast<std::int64_t>(table.size());
  }
};

cpu::TritCodes numbers_as_codes(std::int64_t words) {
  cpu::TritCodes codes;
  for (std::int64_t word = 0; word < words; ++word) {
    codes.codes.push_back(static_cast<std::uint32_t>(word));
    codes.bits.push_back(kTritCodeBits);
  }
  return codes;
}

cpu::TritCodes shortest_codes(const cpu::TritWords& rows, std::int64_t words) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(words));
  for (const std::uint16_t word : rows.words) ++counts[word];
  // A code of one word alone would leave bits without code.
  for (std::size_t i = 0; std::ranges::count(counts, 0) > words - 2; ++i) {
    counts[i] = std::max<std::int64_t>(counts[i], 1);
  }
  cpu::TritCodes codes;
  codes.bits = huffman_lengths(counts, kTritCodeBits);
  codes.codes = huffman_codes(codes.bits, kTritCodeBits);
  return codes;
}

EncodedTrits encode_with(
    const TritTree& tree, PackedKind kind, const cpu::TritRows& rows) {
  EncodedTrits result;
  BitWriter table;
  write_trit_tree(tree, table);
  result.rows = cpu::parse_trits(rows, tree);
  if (kind == PackedKind::kTernaryWords) {
    result.codes = numbers_as_codes(tree.words);
  } else {
    result.codes = shortest_codes(result.rows, tree.words);
    for (const int bits : result.codes.bits) {
      table.put(static_cast<std::uint32_t>(bits), 4);
    }
  }
  result.table = table.bytes();
  result.row_begin = cpu::coded_row_begin(result.rows, result.codes);
  return result;
}

template <class T>
at::Tensor as_tensor(const std::vector<T>& values, at::ScalarType type) {
  at::Tensor tensor =
      at::empty({static_cast<std::int64_t>(values.size())}, type);
  std::copy(values.begin(), values.end(), tensor.mutable_data_ptr<T>());
  return tensor;
}

PackedArgs trit_code_args(const PackedMatrix& m) {
  PackedArgs args{};
  args.kind = m.kind;
  args.rows = m.rows;
  args.cols = m.cols;
  args.codes = m.codes.const_data_ptr<std::uint8_t>();
  args.codes_bytes = m.codes.numel();
  args.row_begin = m.row_begin.const_data_ptr<std::int64_t>();
  args.table = m.table.const_data_ptr<std::uint8_t>();
  args.table_bytes = m.table.numel();
  return args;
}

void decode_or_refuse(
    const PackedMatrix& m,
    std::int64_t first,
    std::int64_t n,
    std::int8_t* out) {
  FETTLE_ASSERT(m.defined() && m.codes.is_cpu() && is_trit_code(m.kind));
  FETTLE_ASSERT(first >= 0 && n >= 0 && first <= m.rows - n);
  const std::int64_t row = cpu::decode_trits(trit_code_args(m), first, n, out);
  if (row >= 0) {
    throw UserError(
        "kernels",
        "row " + std::to_string(row) + " of a coded ternary matrix",
        "its codes are not those of " + std::to_string(m.cols) +
            " weights; copy or make the file anew");
  }
}

// Bytes 8 to a word, as they lie in a table.
void check_words(const std::uint8_t* table, std::int64_t words) {
  for (std::int64_t i = 0; i < words; ++i, table += kTritWordBytes) {
    const int zeros = table[6], trits = table[7];
    if (zeros >= kMostWordTrits || trits > kMostWordTrits) {
      refuse_trit_table("a word is too long");
    }
  }
}

}  // namespace

TritCode encode_trits(PackedKind kind, const at::Tensor& trits) {
  FETTLE_ASSERT(is_trit_code(kind) && trits.is_cpu() && trits.dim() == 2);
  FETTLE_ASSERT(trits.scalar_type() == at::kChar);
  const at::Tensor whole = trits.contiguous();
  const cpu::TritRows rows{
      whole.const_data_ptr<std::int8_t>(), whole.size(0), whole.size(1)};
  const auto counts = cpu::count_trits(rows);
  FETTLE_ASSERT(counts[0] + counts[1] + counts[2] == whole.numel());
  std::int64_t words = most_words(kind) - 1;
  EncodedTrits best = encode_with(grow_trit_tree(counts, words), kind, rows);
  while (whole.numel() <= kFewTrits && words > 3) {
    words /= 2;
    EncodedTrits next = encode_with(grow_trit_tree(counts, words), kind, rows);
    if (100 * next.bytes() > kWorthSlower * best.bytes()) break;
    best = std::move(next);
  }
  TritCode code;
  code.kind = kind;
  code.codes = at::empty({best.row_begin.back()}, at::kByte);
  cpu::write_coded_rows(
      best.rows,
      best.codes,
      best.row_begin,
      code.codes.mutable_data_ptr<std::uint8_t>());
  code.row_begin = as_tensor(best.row_begin, at::kLong);
  code.table = as_tensor(best.table, at::kByte);
  return code;
}

std::int64_t stored_bytes(const TritCode& code) {
  return code.codes.numel() + encode_row_lengths(code.row_begin).numel() +
         code.table.numel();
}

at::Tensor prepare_trit_table(PackedKind kind, const at::Tensor& stored) {
  FETTLE_ASSERT(is_trit_code(kind) && stored.is_cpu());
  FETTLE_ASSERT(stored.scalar_type() == at::kByte && stored.dim() == 1);
  if (stored.numel() > kMostStoredTable) refuse_trit_table("it is too long");
  const at::Tensor whole = stored.contiguous();
  BitReader from(
      {whole.const_data_ptr<std::uint8_t>(),
       static_cast<std::size_t>(whole.numel())});
  const auto words = read_trit_words(from, most_words(kind));
  if (words.empty()) refuse_trit_table("it has no tree of words");
  at::Tensor table = at::zeros({trit_table_bytes(kind)}, at::kByte);
  auto* to = table.mutable_data_ptr<std::uint8_t>();
  std::memcpy(to, words.data(), words.size() * sizeof words[0]);
  if (kind == PackedKind::kTernaryHuffman) {
    std::vector<int> lengths;
    for (std::size_t i = 0; i < words.size(); ++i) {
      lengths.push_back(static_cast<int>(from.get(4)));
    }
    const auto codes = huffman_codes(lengths, kTritCodeBits);
    if (codes.empty()) refuse_trit_table("no code has such lengths");
    to += kTritHuffmanWords * kTritWordBytes;
    for (std::size_t word = 0; word < codes.size(); ++word) {
      if (lengths[word] == 0) continue;
      const std::uint32_t step = 1u << lengths[word];
      for (std::uint32_t v = codes[word]; v < kTritCodeValues; v += step) {
        to[2 * v] = static_cast<std::uint8_t>(lengths[word]);
        to[2 * v + 1] = static_cast<std::uint8_t>(word);
      }
    }
  }
  if (!from.is_at_end()) refuse_trit_table("it has bytes left over");
  return table;
}

void check_trit_code(const PackedMatrix& m) {
  FETTLE_ASSERT(is_trit_code(m.kind) && m.defined());
  const at::Tensor &begin = m.row_begin, &table = m.table;
  FETTLE_ASSERT(begin.defined() && table.defined());
  FETTLE_ASSERT(begin.dim() == 1 && begin.numel() == m.rows + 1);
  FETTLE_ASSERT(begin.scalar_type() == at::kLong && begin.is_contiguous());
  FETTLE_ASSERT(table.dim() == 1 && table.numel() == trit_table_bytes(m.kind));
  FETTLE_ASSERT(table.scalar_type() == at::kByte && table.is_contiguous());
  FETTLE_ASSERT(begin.device() == m.codes.device());
  FETTLE_ASSERT(table.device() == m.codes.device());
  const auto* bytes = table.const_data_ptr<std::uint8_t>();
  FETTLE_ASSERT(reinterpret_cast<std::uintptr_t>(bytes) % 8 == 0);
  if (!m.codes.is_cpu()) return;
  check_words(bytes, most_words(m.kind));
  if (m.kind == PackedKind::kTernaryWords) return;
  const auto* found = bytes + kTritHuffmanWords * kTritWordBytes;
  for (int v = 0; v < kTritCodeValues; ++v, found += 2) {
    if (found[0] > kTritCodeBits) refuse_trit_table("a code is too long");
  }
}

at::Tensor decode_trits(
    const PackedMatrix& matrix, std::int64_t first, std::int64_t n) {
  at::Tensor trits = at::empty({n, matrix.cols}, at::kChar);
  decode_or_refuse(matrix, first, n, trits.mutable_data_ptr<std::int8_t>());
  return trits;
}

void check_trit_rows(
    const PackedMatrix& matrix, std::int64_t first, std::int64_t n) {
  decode_or_refuse(matrix, first, n, nullptr);
}

}  // namespace fettle::kernels
