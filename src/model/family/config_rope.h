// SPDX-License-Identifier: Apache-2.0
// The rotary embedding's options out of config.json.
#pragma once

#include <cstdint>
#include <optional>

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::model {

struct RopeDefaults {
  double theta = 10000.0;
  std::int64_t dim = 0;  // rotated dimensions of a head
  std::int64_t max_position = 0;
  // The part of `dim` that is rotated where config.json is silent; none: the
  // family rotates all of it, and knows no other way.
  std::optional<double> partial = {};
};

// Reads `rope_scaling` with `rope_theta` (transformers 4) or `rope_parameters`
// (transformers 5). `factor` and `original_max_position` come back filled in
// where the kind has them; `mscale` and `mscale_all_dim` only when not zero.
// Throws UserError on an unknown kind or key. Source: transformers 5.17,
// modeling_rope_utils.py.
RopeConfig parse_rope(const JsonObject& config, const RopeDefaults& defaults);

}  // namespace fettle::model
