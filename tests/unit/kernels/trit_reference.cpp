// SPDX-License-Identifier: Apache-2.0
#include "trit_reference.h"

#include <ATen/CPUGeneratorImpl.h>

#include <cmath>
#include <map>
#include <string>

namespace fettle::kernels::test {
namespace {

// Thrown where something is damaged.
struct Damage {};

class Bits {
 public:
  Bits(const std::uint8_t* bytes, std::size_t size)
      : bytes_(bytes), size_(8 * size) {}

  bool next() {
    if (at_ == size_) throw Damage{};
    const bool bit = (bytes_[at_ / 8] >> at_ % 8 & 1) != 0;
    ++at_;
    return bit;
  }
  std::uint64_t number(int bits) {
    std::uint64_t sum = 0;
    for (int i = 0; i < bits; ++i) sum += next() ? std::uint64_t{1} << i : 0;
    return sum;
  }
  void expect_end() {
    while (at_ % 8 != 0) {
      if (next()) throw Damage{};
    }
    if (at_ != size_) throw Damage{};
  }
  std::size_t taken() const { return at_; }

 private:
  const std::uint8_t* bytes_;
  std::size_t size_, at_ = 0;
};

std::string trimmed(const std::string& word) {
  const auto first = word.find_first_not_of('0');
  if (first == std::string::npos) return "";
  return word.substr(first, word.find_last_not_of('0') - first + 1);
}

// Words as text of the characters 0, + and -.
void read_words(
    Bits& bits, const std::string& path, std::vector<std::string>& words) {
  if (bits.next()) {
    if (path.size() >= 224) throw Damage{};
    for (const char trit : {'0', '+', '-'}) {
      read_words(bits, path + trit, words);
    }
  } else {
    if (path.empty() || trimmed(path).size() > 24) throw Damage{};
    words.push_back(path);
  }
}

// Each word's code as text of 0 and 1, the first bit first.
std::vector<std::string> read_codes(Bits& bits, std::size_t words) {
  std::vector<std::uint64_t> lengths;
  double covered = 0;
  for (std::size_t i = 0; i < words; ++i) {
    lengths.push_back(bits.number(4));
    if (lengths.back() > 10) throw Damage{};
    if (lengths.back() > 0)
      covered += std::pow(0.5, static_cast<double>(lengths.back()));
  }
  if (covered != 1.0) throw Damage{};
  std::vector<std::string> codes(words);
  std::uint64_t code = 0;
  for (std::uint64_t length = 1; length <= 10; ++length, code *= 2) {
    for (std::size_t i = 0; i < words; ++i) {
      if (lengths[i] != length) continue;
      for (std::uint64_t b = length; b-- > 0;) {
        codes[i] += (code >> b & 1) != 0 ? '1' : '0';
      }
      ++code;
    }
  }
  return codes;
}

std::vector<std::string> numbered_codes(std::size_t words) {
  std::vector<std::string> codes(words);
  for (std::size_t i = 0; i < words; ++i) {
    for (int b = 0; b < 10; ++b) codes[i] += (i >> b & 1) != 0 ? '1' : '0';
  }
  return codes;
}

std::map<std::string, std::string> read_table(const StoredTrits& stored) {
  Bits bits(stored.table.data(), stored.table.size());
  std::vector<std::string> words;
  read_words(bits, "", words);
  const bool fixed = stored.kind == PackedKind::kTernaryWords;
  if (words.size() > (fixed ? 1024 : 256)) throw Damage{};
  const auto codes =
      fixed ? numbered_codes(words.size()) : read_codes(bits, words.size());
  bits.expect_end();
  std::map<std::string, std::string> word_of;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (!codes[i].empty()) word_of[codes[i]] = words[i];
  }
  return word_of;
}

std::vector<std::size_t> read_lengths(const StoredTrits& stored) {
  Bits bits(stored.row_lengths.data(), stored.row_lengths.size());
  const std::uint64_t least = bits.number(32);
  const auto more = static_cast<int>(bits.number(8));
  if (more > 32) throw Damage{};
  std::vector<std::size_t> lengths;
  std::size_t sum = 0;
  for (std::int64_t r = 0; r < stored.rows; ++r) {
    lengths.push_back(least + bits.number(more));
    sum += lengths.back();
  }
  bits.expect_end();
  if (sum != stored.codes.size()) throw Damage{};
  return lengths;
}

std::string read_row(
    const std::map<std::string, std::string>& word_of,
    const std::uint8_t* codes,
    std::size_t bytes,
    std::size_t cols) {
  Bits bits(codes, bytes);
  std::string row;
  while (row.size() < cols) {
    std::string code;
    auto found = word_of.end();
    while (found == word_of.end()) {
      if (code.size() == 10) throw Damage{};
      code += bits.next() ? '1' : '0';
      found = word_of.find(code);
    }
    row += found->second;
  }
  if ((bits.taken() + 7) / 8 != bytes) throw Damage{};
  return row.substr(0, cols);
}

std::vector<std::uint8_t> vector_of(const at::Tensor& t) {
  const auto* p = t.const_data_ptr<std::uint8_t>();
  return {p, p + t.numel()};
}

}  // namespace

at::Tensor tensor_of_bytes(const std::vector<std::uint8_t>& bytes) {
  at::Tensor t =
      at::empty({static_cast<std::int64_t>(bytes.size())}, at::kByte);
  std::copy(bytes.begin(), bytes.end(), t.mutable_data_ptr<std::uint8_t>());
  return t;
}

at::Tensor seeded_trits(
    std::int64_t rows, std::int64_t cols, TritOdds odds, std::int64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const at::Tensor u = at::rand({rows, cols}, generator, at::kDouble);
  const at::Tensor plus =
      u.ge(odds.zero).logical_and(u < odds.zero + odds.plus);
  const at::Tensor minus = u.ge(odds.zero + odds.plus);
  return plus.to(at::kChar) - minus.to(at::kChar);
}

double trit_entropy(TritOdds odds) {
  double sum = 0;
  for (const double p : {odds.zero, odds.plus, 1 - odds.zero - odds.plus}) {
    if (p > 1e-12) sum -= p * std::log2(p);
  }
  return sum;
}

StoredTrits stored_trits(const TritCode& code, std::int64_t cols) {
  return {
      code.kind,
      code.row_begin.numel() - 1,
      cols,
      vector_of(code.codes),
      vector_of(encode_row_lengths(code.row_begin)),
      vector_of(code.table)};
}

PackedMatrix loaded_trits(const StoredTrits& stored, std::int64_t group) {
  PackedMatrix m{
      .kind = stored.kind,
      .rows = stored.rows,
      .cols = stored.cols,
      .group = group};
  m.codes = tensor_of_bytes(stored.codes);
  m.scales = at::ones({m.rows, m.groups()}, at::kBFloat16);
  m.row_begin = decode_row_lengths(
      tensor_of_bytes(stored.row_lengths), m.rows, m.codes.numel());
  m.table = prepare_trit_table(m.kind, tensor_of_bytes(stored.table));
  return m;
}

std::optional<at::Tensor> reference_trits(const StoredTrits& stored) {
  try {
    const auto word_of = read_table(stored);
    at::Tensor trits = at::empty({stored.rows, stored.cols}, at::kChar);
    auto* to = trits.mutable_data_ptr<std::int8_t>();
    const std::uint8_t* codes = stored.codes.data();
    for (const std::size_t bytes : read_lengths(stored)) {
      const auto cols = static_cast<std::size_t>(stored.cols);
      for (const char trit : read_row(word_of, codes, bytes, cols)) {
        *to++ =
            static_cast<std::int8_t>(trit == '0' ? 0 : (trit == '+' ? 1 : -1));
      }
      codes += bytes;
    }
    return trits;
  } catch (const Damage&) {
    return std::nullopt;
  }
}

}  // namespace fettle::kernels::test
