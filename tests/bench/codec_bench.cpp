// SPDX-License-Identifier: Apache-2.0
// What the codes of trits take and how fast they are, on the CPU, as JSON.
// Usage: fettle_bench_codec [--threads N]
//
// Trits are independent; `entropy` is the least they can take. `rate` is bits a
// weight in a file without scales: codes, lengths of rows and table. Plain
// trits, five a byte, take 1.6. Rates of weights a second are medians: `encode`
// from trits to codes, `decode` to trits, `unpack` to bfloat16 weights,
// `product` of the matrix and one vector.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <iostream>

#include "core/json.h"
#include "kernels/packed_matrix.h"
#include "kernels/trit_code.h"

namespace {

using namespace fettle::kernels;
using at::Tensor;

struct Size {
  std::int64_t rows, cols;
};

constexpr std::int64_t kGroup = 128;

double median_seconds(int runs, const std::function<void()>& f) {
  std::vector<double> seconds;
  for (int i = 0; i <= runs; ++i) {
    const auto start = std::chrono::steady_clock::now();
    f();
    const std::chrono::duration<double> spent =
        std::chrono::steady_clock::now() - start;
    if (i > 0) seconds.push_back(spent.count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

double entropy(double zero) {
  return -zero * std::log2(zero) - (1 - zero) * std::log2((1 - zero) / 2);
}

Tensor random_trits(Size size, double zero) {
  auto generator = at::detail::createCPUGenerator(1);
  const Tensor u = at::rand({size.rows, size.cols}, generator, at::kDouble);
  return u.ge(zero).to(at::kChar) - 2 * u.ge((1 + zero) / 2).to(at::kChar);
}

PackedMatrix coded(const TritCode& code, Size size) {
  PackedMatrix m{
      .kind = code.kind, .rows = size.rows, .cols = size.cols, .group = kGroup};
  m.codes = code.codes;
  m.scales = at::ones({m.rows, m.groups()}, at::kBFloat16);
  m.row_begin = code.row_begin;
  m.table = prepare_trit_table(code.kind, code.table);
  return m;
}

PackedMatrix plain(const Tensor& trits, Size size) {
  PackedMatrix m{
      .kind = PackedKind::kTernary,
      .rows = size.rows,
      .cols = size.cols,
      .group = kGroup};
  m.codes = pack_codes(m.kind, 0, (trits + 1).to(at::kByte));
  m.scales = at::ones({m.rows, m.groups()}, at::kBFloat16);
  return m;
}

void add_speeds(fettle::Json& line, const PackedMatrix& m) {
  const auto weights = static_cast<double>(m.rows * m.cols);
  const Tensor out = at::empty({m.rows, m.cols}, at::kBFloat16);
  const Tensor x = at::randn({1, m.cols}), y = at::empty({1, m.rows});
  const PackedProduct product{&m, x, y};
  line["unpack"] =
      weights / median_seconds(15, [&] { unpack_rows(m, 0, out); });
  line["product"] =
      weights / median_seconds(15, [&] { packed_products({&product, 1}); });
}

fettle::Json measure(PackedKind kind, Size size, double zero) {
  const Tensor trits = random_trits(size, zero);
  const auto weights = static_cast<double>(trits.numel());
  fettle::Json line = {
      {"rows", size.rows},
      {"cols", size.cols},
      {"zeros", zero},
      {"entropy", entropy(zero)}};
  if (kind == PackedKind::kTernary) {
    const PackedMatrix m = plain(trits, size);
    line["code"] = "five a byte";
    line["rate"] = 8.0 * static_cast<double>(m.codes.numel()) / weights;
    add_speeds(line, m);
    return line;
  }
  const TritCode code = encode_trits(kind, trits);
  const PackedMatrix m = coded(code, size);
  line["code"] = kind == PackedKind::kTernaryWords ? "words" : "huffman";
  line["rate"] = 8.0 * static_cast<double>(stored_bytes(code)) / weights;
  line["codes_rate"] = 8.0 * static_cast<double>(code.codes.numel()) / weights;
  line["table_bytes"] = code.table.numel();
  line["row_length_bytes"] = encode_row_lengths(code.row_begin).numel();
  line["encode"] =
      weights / median_seconds(5, [&] { encode_trits(kind, trits); });
  line["decode"] =
      weights / median_seconds(15, [&] { decode_trits(m, 0, m.rows); });
  add_speeds(line, m);
  return line;
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--threads") == 0 && i + 1 < argc) {
      at::set_num_threads(std::max(1, std::atoi(argv[++i])));
    } else {
      std::cerr << "usage: fettle_bench_codec [--threads N]\n";
      return 2;
    }
  }
  at::NoGradGuard no_gradients;
  fettle::Json report = {{"threads", at::get_num_threads()}};
  for (const Size size : {Size{768, 2048}, Size{2048, 768}, Size{128, 256}}) {
    for (const double zero : {0.5, 0.7, 0.857, 0.885, 0.95}) {
      for (const PackedKind kind :
           {PackedKind::kTernary,
            PackedKind::kTernaryWords,
            PackedKind::kTernaryHuffman}) {
        report["codes"].push_back(measure(kind, size, zero));
      }
    }
  }
  std::cout << report.dump(2) << '\n';
}
