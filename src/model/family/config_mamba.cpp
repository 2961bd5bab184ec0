// SPDX-License-Identifier: Apache-2.0
#include "model/family/config_mamba.h"

#include <fmt/format.h>

#include <limits>

namespace fettle::model {
namespace {

constexpr std::string_view kLimits = "time_step_limit";

double limit_of(const JsonObject& json, const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == Json{{"__float__", "Infinity"}}) {
    return std::numeric_limits<double>::infinity();
  }
  json.refuse(
      kLimits, fmt::format("holds {}, which is no number", value.dump()));
}

}  // namespace

void parse_step_limits(const JsonObject& json, MambaConfig& mamba) {
  if (!json.has(kLimits) || json.at(kLimits).is_null()) return;
  const Json& limits = json.at(kLimits);
  if (!limits.is_array() || limits.size() != 2) {
    json.refuse(kLimits, "must be a list of the least and the largest step");
  }
  mamba.least_step = limit_of(json, limits[0]);
  mamba.most_step = limit_of(json, limits[1]);
  if (!(mamba.least_step >= 0 && mamba.least_step < mamba.most_step)) {
    json.refuse(
        kLimits,
        fmt::format("is {}; steps rise from 0 or more", limits.dump()));
  }
}

void check_mamba_groups(
    const JsonObject& json, const MambaConfig& mamba, std::string_view key) {
  if (mamba.heads % mamba.groups == 0) return;
  json.refuse(
      key,
      fmt::format(
          "is {}, which {} groups do not divide", mamba.heads, mamba.groups));
}

void check_mamba(
    const JsonObject& json, const ModelConfig& config, std::int64_t expand) {
  const MambaConfig& m = config.mamba;
  check_mamba_groups(json, m, "mamba_n_heads");
  if (m.inner_size() != expand * config.hidden_size) {
    json.refuse(
        "mamba_expand",
        fmt::format(
            "is {}: {} heads of {} are not {} times {}",
            expand,
            m.heads,
            m.head_dim,
            expand,
            config.hidden_size));
  }
}

}  // namespace fettle::model
