// SPDX-License-Identifier: Apache-2.0
#include "analyze/score_method.h"

#include <fmt/format.h>

#include <array>

#include "core/error.h"

namespace fettle::analyze {

std::span<const ScoreMethod> score_methods() {
  static const std::array methods{
      mask_fisher_score(),
      weight_fisher_score(),
      grad_abs_score(),
      heapr_score(),
      camera_score(),
      obs_score(),
      wanda_score(),
      magnitude_score(),
      random_score(),
      reap_score(),
      frequency_score(),
      gate_mass_score(),
      expert_fisher_score()};
  return methods;
}

const at::Tensor& values_of(const Sums& sums, const std::string& name) {
  const auto found = sums.find(name);
  if (found != sums.end()) return found->second.values;
  throw UserError(
      "scores",
      "sum " + name,
      "is missing; run fettle analyze of this version again");
}

const ScoreMethod& find_score(std::string_view name) {
  std::string known;
  for (const ScoreMethod& method : score_methods()) {
    if (method.name == name) return method;
    known += known.empty() ? "" : ", ";
    known += method.name;
  }
  throw UserError(
      "analyze", name, fmt::format("no such score; the known are {}", known));
}

}  // namespace fettle::analyze
