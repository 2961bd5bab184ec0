// SPDX-License-Identifier: Apache-2.0
#include "export/value_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"

namespace fettle::exporter {

double relative_error(const at::Tensor& found, const at::Tensor& meant) {
  if (found.numel() == 0) return 0;
  // Some rows at a time, so that a large matrix is not copied in fp32.
  constexpr std::int64_t kRows = 4096;
  double size = 0;
  double error = 0;
  const std::int64_t all = meant.dim() > 0 ? meant.size(0) : 1;
  for (std::int64_t first = 0; first < all; first += kRows) {
    const auto rows = [&](const at::Tensor& whole) {
      const at::Tensor part =
          whole.dim() > 0 ? whole.narrow(0, first, std::min(kRows, all - first))
                          : whole;
      return part.to(at::kFloat);
    };
    const at::Tensor b = rows(meant);
    const double off = (rows(found) - b).abs().max().item<double>();
    if (std::isnan(off) && !rows(found).equal(b)) return off;
    error = std::max(error, off);
    size = std::max(size, b.abs().max().item<double>());
  }
  return error > 0 && size > 0 ? error / size : error;
}

bool is_rounded(double error, bool nearest, const InexactWeight& weight) {
  if (error == 0) return false;
  if (nearest && error <= kNearestError) return true;
  throw UserError(
      "export",
      weight.name,
      fmt::format(
          "{}; {}{}",
          weight.lost,
          nearest ? "" : "export with --nearest to round them, or ",
          weight.instead));
}

ValueCheck::ValueCheck(std::filesystem::path file, bool nearest)
    : file_(std::move(file)), nearest_(nearest) {}

void ValueCheck::compare(
    const std::string& weight,
    const at::Tensor& found,
    const at::Tensor& meant) {
  if (found.sizes() == meant.sizes()) {
    const double error = relative_error(found, meant);
    largest_ = std::max(largest_, error);
    if (error <= (nearest_ ? kNearestError : 0.0)) return;
  }
  throw InternalError(fmt::format(
      "{}: {} read back differs from what was meant", file_.string(), weight));
}

at::Tensor filled_up(
    const at::Tensor& tensor, const std::vector<std::int64_t>& shape) {
  if (tensor.sizes() == at::IntArrayRef(shape)) return tensor;
  at::Tensor result = at::zeros(shape, tensor.options());
  at::Tensor part = result;
  for (std::int64_t d = 0; d < tensor.dim(); ++d) {
    part = part.narrow(d, 0, tensor.size(d));
  }
  part.copy_(tensor);
  return result;
}

}  // namespace fettle::exporter
