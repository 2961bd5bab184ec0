// SPDX-License-Identifier: Apache-2.0
// What a weight is stored as, and which scheme each part of a model gets.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "kernels/gptq.h"
#include "model/family/model_config.h"
#include "model/family/weight_table.h"
#include "model/weights/packed_weight.h"

namespace fettle::quant {

struct Scheme {
  bool keep = false;  // as it is stored
  kernels::PackedKind kind = kernels::PackedKind::kInt;
  std::int64_t bits = 4;  // of kInt
  bool coded = false;     // of kTernary: by the codec that makes it smallest

  bool operator==(const Scheme&) const = default;
};

// "int8", "int4", "int3", "int2", "ternary", "ternary-coded", "keep". Throws
// UserError naming them on another name.
Scheme parse_scheme(std::string_view name);
std::string scheme_name(const Scheme& scheme);
std::vector<std::string> scheme_names();

// Parts of a model that are given a scheme together. What is in no part
// (routers, norms, biases) is never quantized.
enum class Part {
  kExperts,     // gate and up of the experts
  kDown,        // down of the experts
  kShared,      // a shared expert
  kDense,       // the MLP of a dense layer
  kAttention,   // projections
  kEmbeddings,  // with the head, where that is tied to them
  kHead,
};
std::optional<Part> part_of(model::Role role);
std::string_view part_name(Part part);

using Schemes = std::map<Part, Scheme>;

// How levels are chosen, whatever the scheme.
struct GridOptions {
  std::int64_t group = 128;  // weights that share a scale; 0: a row
  // No zero points; unset: only of 2 and 3 bits, and only where codes are not
  // refined, which does as well without.
  std::optional<bool> symmetric = {};
  double entropy_weight = 0.0;  // of ternary, see kernels::QuantGrid

  Json to_json() const;
};

// The grid of a weight with rows of `cols` weights.
kernels::QuantGrid grid_of(
    const Scheme& scheme, const GridOptions& options, std::int64_t cols);

// The header that a weight so packed will have; of coded trits, whose bytes are
// known only afterwards, that of plain ones.
model::PackedHeader planned_header(
    const Scheme& scheme,
    const GridOptions& options,
    std::int64_t rows,
    std::int64_t cols);

}  // namespace fettle::quant
