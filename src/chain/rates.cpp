// SPDX-License-Identifier: Apache-2.0
#include "chain/rates.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "core/bytes.h"
#include "io/disk_speed.h"

namespace fettle::chain {
namespace {

// A card of the last years multiplies bfloat16 at least at this rate, and an
// SSD reads so much.
constexpr double kAssumedProducts = 50e12;
constexpr double kAssumedRead = 1 << 30;

double read_rate(const std::filesystem::path& file) {
  constexpr std::uint64_t kBytes = std::uint64_t{64} << 20;
  return file.empty() ? kAssumedRead : io::measure_read(file, kBytes);
}

// The best of some products: others may use the machine meanwhile.
double product_rate(at::Device device, at::ScalarType type) {
  const std::int64_t size = device.is_cpu() ? 512 : 4096;
  const auto options = at::TensorOptions(type).device(device);
  const at::Tensor a = at::ones({size, size}, options);
  at::mm(a, a);
  double best = 0.0;
  for (int i = 0; i < 5; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    at::mm(a, a)[0][0].item<double>();  // waits for a card
    const std::chrono::duration<double> seconds =
        std::chrono::steady_clock::now() - begin;
    const double n = static_cast<double>(size);
    best = std::max(best, 2.0 * n * n * n / std::max(seconds.count(), 1e-9));
  }
  return best;
}

}  // namespace

Rates measure_rates(
    at::Device device, at::ScalarType type, const std::filesystem::path& file) {
  return {product_rate(device, type), read_rate(file), true, !file.empty()};
}

Rates assumed_rates(const std::filesystem::path& file) {
  return {kAssumedProducts, read_rate(file), false, !file.empty()};
}

std::string Rates::text() const {
  const auto how = [](bool measured) {
    return measured ? "measured" : "assumed";
  };
  return fmt::format(
      "{:.3g} TFLOP/s {}, {}/s read from disk {}",
      products / 1e12,
      how(products_measured),
      format_bytes(static_cast<std::int64_t>(read)),
      how(read_measured));
}

}  // namespace fettle::chain
