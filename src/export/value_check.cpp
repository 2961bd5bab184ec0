// SPDX-License-Identifier: Apache-2.0
#include "export/value_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace fettle::exporter {

double relative_error(const at::Tensor& found, const at::Tensor& meant) {
  const at::Tensor a = found.to(at::kFloat), b = meant.to(at::kFloat);
  if (a.equal(b)) return 0;
  const double size = b.abs().max().item<double>();
  const double error = (a - b).abs().max().item<double>();
  return size > 0 ? error / size : error;
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
