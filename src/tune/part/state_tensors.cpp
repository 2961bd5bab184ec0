// SPDX-License-Identifier: Apache-2.0
#include "tune/part/state_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "core/error.h"

namespace fettle::tune {

namespace {

bool matches(const at::Tensor& tensor, const ExpectedTensor& expected) {
  if (tensor.scalar_type() != expected.type) return false;
  if (tensor.dim() != static_cast<std::int64_t>(expected.shape.size())) {
    return false;
  }
  for (std::int64_t d = 0; d < tensor.dim(); ++d) {
    const std::int64_t size = expected.shape[d];
    if (size >= 0 && tensor.size(d) != size) return false;
  }
  return true;
}

}  // namespace

std::string layer_key(
    std::string_view part, std::int64_t layer, std::string_view what) {
  return fmt::format("{}.layers.{}.{}", part, layer, what);
}

at::Tensor take_tensor(
    const artifact::TensorMap& from,
    const std::string& name,
    const ExpectedTensor& expected) {
  const auto found = from.find(name);
  if (found == from.end()) {
    throw UserError(
        "tune",
        name,
        "expected this tensor, found none; the file is not of "
        "this model and method");
  }
  if (!matches(found->second, expected)) {
    throw UserError(
        "tune",
        name,
        fmt::format(
            "expected {} [{}] (-1: any), found {} [{}]; the file is not of "
            "this model and method",
            c10::toString(expected.type),
            fmt::join(expected.shape, ", "),
            c10::toString(found->second.scalar_type()),
            fmt::join(found->second.sizes(), ", ")));
  }
  return found->second;
}

at::Tensor take_index(
    const artifact::TensorMap& from,
    const std::string& name,
    std::int64_t limit) {
  const at::Tensor index =
      take_tensor(from, name, {at::kInt, {-1}}).to(at::kLong);
  std::int64_t last = -1;
  for (std::int64_t i = 0; i < index.size(0); ++i) {
    const std::int64_t entry = index.const_data_ptr<std::int64_t>()[i];
    if (entry <= last || entry >= limit) {
      throw UserError(
          "tune",
          name,
          fmt::format(
              "expected ascending numbers in [0, {}), found {} after {}; the "
              "file is damaged or of another model",
              limit,
              entry,
              last));
    }
    last = entry;
  }
  return index;
}

}  // namespace fettle::tune
