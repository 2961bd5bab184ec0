// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/packed_mlps.h"

#include <atomic>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/parallel.h"

namespace fettle::kernels {
namespace {

bool multiply(const MixedProducts& products, const cpu::Share& share) {
  const PackedProductsArgs plain{
      .dtype = DType::kFloat32,
      .products = products.plain.data(),
      .count = static_cast<std::int64_t>(products.plain.size())};
  return cpu::share_of_packed_products(plain, share) &&
         cpu::share_of_rounded_products(products.rounded, share);
}

void activate(const MlpRowsArgs& rows, std::int64_t row) {
  SwigluArgs one = rows.activation;
  const std::int64_t width = one.width;
  one.gate_up = static_cast<const float*>(one.gate_up) +
                row * inputs_of(one.activation) * width;
  one.h = static_cast<float*>(one.h) + row * width;
  one.rows = 1;
  cpu::swiglu(one);
  if (rows.rounding.n == 0) return;
  RoundingArgs rounding = rows.rounding;
  rounding.x += row * rounding.x_stride;
  rounding.n = 1;
  rounding.rows = rounding.rows.from(row);
  cpu::round_rows(rounding);
}

std::int64_t work_of(const MixedProducts& products) {
  std::int64_t work = 0;
  for (const auto& p : products.plain) work += p.matrix.rows * p.matrix.cols;
  for (const auto& p : products.rounded) work += p.matrix.rows * p.matrix.cols;
  return work;
}

}  // namespace

bool cpu::packed_mlps(const PackedMlpsArgs& args) {
  constexpr std::int64_t kWorthThreads = 1 << 15;
  std::atomic<bool> sound = true;
#pragma omp \
    parallel if (work_of(args.in) >= kWorthThreads && !omp_in_parallel())
  {
    const Share share{omp_get_thread_num(), omp_get_num_threads()};
    if (!multiply(args.in, share)) sound = false;
#pragma omp barrier
    std::int64_t turn = 0;
    for (const MlpRowsArgs& rows : args.between) {
      for (std::int64_t row = 0; row < rows.activation.rows; ++row) {
        if (turn++ % share.parts == share.part) activate(rows, row);
      }
    }
#pragma omp barrier
    if (!multiply(args.out, share)) sound = false;
  }
  return sound;
}

}  // namespace fettle::kernels
