// SPDX-License-Identifier: Apache-2.0
#include "model/weights/weight_values.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace fettle::model {
namespace {

constexpr std::int64_t kElements = 1 << 20;  // looked at at once

}  // namespace

WeightValues scan_values(
    const ModelReader& reader,
    const std::function<void(std::int64_t)>& advance) {
  WeightValues values;
  for (const WeightId& id : model_weights(reader.config())) {
    const std::int64_t numel = weight_numel(reader.config(), id);
    if (numel == 0) continue;
    ++values.weights;
    const std::int64_t row = numel / weight_shape(reader.config(), id)[0];
    std::int64_t bad = 0;
    bool zero = true;
    reader.read_rows(
        id,
        std::max<std::int64_t>(1, kElements / row),
        [&](std::int64_t /*first*/, const at::Tensor& rows) {
          bad += rows.numel() - at::isfinite(rows).sum().item<std::int64_t>();
          zero = zero && !at::any(rows).item<bool>();
        });
    const std::string name = weight_name(reader.config(), id);
    if (bad > 0) values.not_finite.push_back({name, bad});
    if (zero) values.zero.push_back(name);
    advance(numel);
  }
  return values;
}

void check_values(const WeightValues& values, const ModelReader& reader) {
  if (const std::size_t bad = values.not_finite.size(); bad > 0) {
    const auto& first = values.not_finite.front();
    throw UserError(
        "weights",
        first.name,
        fmt::format(
            "holds {} values that are NaN or infinite{}. Perhaps a damaged "
            "file?",
            first.count,
            bad == 1 ? "" : fmt::format(", as do {} other weights", bad - 1)));
  }
  if (std::ssize(values.zero) < values.weights) return;
  throw UserError(
      "weights",
      reader.folder().string(),
      "all weights are 0: the files have their size, but were never written. "
      "Perhaps an incomplete download or a run that was killed?");
}

}  // namespace fettle::model
