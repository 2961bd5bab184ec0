// SPDX-License-Identifier: Apache-2.0
#include "packed_case.h"

#include <cmath>

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

namespace fettle::kernels::test {
namespace {

struct Size {
  std::int64_t rows, cols, group;
};

// Groups of whole vectors and of parts, a short last one, and one that is
// longer than the row; more rows, and longer ones, than a GPU's block takes at
// once.
constexpr Size kSizes[] = {
    {5, 1408, 128},
    {40, 1024, 32},
    {37, 40, 16},
    {33, 40, 64},
    {3, 1, 1},
    {7, 333, 5},
    {9, 131, 100},
    {6, 777, 777},
    {70, 320, 64},
    {3, 8512, 1216},
    {2, 192, 500},
    {2, 96, 8}};

std::int64_t int_code(
    const PackedMatrix& m, std::int64_t row, std::int64_t col) {
  const auto* codes = m.codes.const_data_ptr<std::uint8_t>();
  const std::int64_t eights = (m.cols + 7) / 8;
  const std::int64_t first = (row * eights + col / 8) * m.bits;
  std::int64_t code = 0;
  for (std::int64_t i = 0; i < m.bits; ++i) {
    const std::int64_t bit = col % 8 * m.bits + i;
    code += (codes[first + bit / 8] >> bit % 8 & 1) << i;
  }
  return code;
}

std::int64_t trit_code(
    const PackedMatrix& m, std::int64_t row, std::int64_t col) {
  const auto* codes = m.codes.const_data_ptr<std::uint8_t>();
  std::int64_t rest = codes[row * ((m.cols + 4) / 5) + col / 5];
  for (std::int64_t i = 0; i < col % 5; ++i) rest /= 3;
  return rest % 3;
}

}  // namespace

at::Tensor seeded_bytes(
    at::IntArrayRef sizes, std::int64_t limit, std::int64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randint(limit, sizes, generator, at::kLong).to(at::kByte);
}

PackedMatrix packed_case(const PackedCase& c) {
  const bool trits = c.kind == PackedKind::kTernary;
  PackedMatrix m{
      .kind = c.kind,
      .bits = c.bits,
      .rows = c.rows,
      .cols = c.cols,
      .group = c.group};
  const std::int64_t row_bytes =
      trits ? (c.cols + 4) / 5 : (c.cols + 7) / 8 * c.bits;
  m.codes = seeded_bytes({c.rows * row_bytes}, trits ? 243 : 256, c.cols);
  auto generator = at::detail::createCPUGenerator(c.bits);
  m.scales =
      at::randn({c.rows, m.groups()}, generator, at::kFloat).to(at::kBFloat16);
  if (c.zeros) {
    m.zeros = seeded_bytes({c.rows, m.groups()}, 1 << c.bits, c.rows);
  }
  return m;
}

std::vector<PackedMatrix> packed_cases() {
  std::vector<PackedMatrix> all;
  for (const auto& [rows, cols, group] : kSizes) {
    for (const std::int64_t bits : {2, 3, 4, 8}) {
      for (const bool zeros : {false, true}) {
        all.push_back(packed_case(
            {.bits = bits,
             .rows = rows,
             .cols = cols,
             .group = group,
             .zeros = zeros}));
      }
    }
    all.push_back(packed_case(
        {.kind = PackedKind::kTernary,
         .rows = rows,
         .cols = cols,
         .group = group}));
  }
  return all;
}

std::string describe(const PackedMatrix& m) {
  return fmt::format(
      "kind {}, {} bits{}, [{}, {}], groups of {}",
      static_cast<int>(m.kind),
      m.bits,
      m.zeros.defined() ? " with zeros" : "",
      m.rows,
      m.cols,
      m.group);
}

at::Tensor plain_codes(const PackedMatrix& m) {
  at::Tensor codes = at::empty({m.rows, m.cols}, at::kByte);
  auto* to = codes.mutable_data_ptr<std::uint8_t>();
  for (std::int64_t r = 0; r < m.rows; ++r) {
    for (std::int64_t c = 0; c < m.cols; ++c) {
      const std::int64_t code =
          m.kind == PackedKind::kInt ? int_code(m, r, c) : trit_code(m, r, c);
      *to++ = static_cast<std::uint8_t>(code);
    }
  }
  return codes;
}

at::Tensor plain_weights(const PackedMatrix& m) {
  const at::Tensor group = at::arange(m.cols, at::kLong).floor_divide(m.group);
  const at::Tensor scales = m.scales.to(at::kDouble).index_select(1, group);
  at::Tensor zeros = at::full(
      {m.rows, m.cols},
      m.kind == PackedKind::kInt ? 1 << (m.bits - 1) : 1,
      at::kDouble);
  if (m.zeros.defined()) {
    zeros = m.zeros.to(at::kDouble).index_select(1, group);
  }
  return (plain_codes(m).to(at::kDouble) - zeros) * scales;
}

at::Tensor packed_product(const PackedMatrix& m, const at::Tensor& x) {
  at::Tensor y = at::full({x.size(0), m.rows}, NAN, x.options());
  const PackedProduct one{&m, x, y};
  packed_products({&one, 1});
  return y;
}

at::Tensor true_product(const PackedMatrix& m, const at::Tensor& x) {
  return x.to(at::kDouble).mm(plain_weights(m).t());
}

}  // namespace fettle::kernels::test
