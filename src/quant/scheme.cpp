// SPDX-License-Identifier: Apache-2.0
#include "quant/scheme.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>

#include "core/error.h"
#include "kernels/packed_matrix.h"

namespace fettle::quant {
namespace {

using kernels::PackedKind;
using model::Role;

const std::array<std::pair<std::string_view, Scheme>, 7> kSchemes{{
    {"int8", {false, PackedKind::kInt, 8, false}},
    {"int4", {false, PackedKind::kInt, 4, false}},
    {"int3", {false, PackedKind::kInt, 3, false}},
    {"int2", {false, PackedKind::kInt, 2, false}},
    {"ternary", {false, PackedKind::kTernary, 0, false}},
    {"ternary-coded", {false, PackedKind::kTernary, 0, true}},
    {"keep", {true, PackedKind::kInt, 0, false}},
}};

constexpr std::array<std::pair<Part, std::string_view>, 7> kParts{{
    {Part::kExperts, "experts"},
    {Part::kDown, "down"},
    {Part::kShared, "shared"},
    {Part::kDense, "dense"},
    {Part::kAttention, "attention"},
    {Part::kEmbeddings, "embeddings"},
    {Part::kHead, "head"},
}};

}  // namespace

std::vector<std::string> scheme_names() {
  std::vector<std::string> names;
  for (const auto& [name, scheme] : kSchemes) names.emplace_back(name);
  return names;
}

Scheme parse_scheme(std::string_view name) {
  for (const auto& [known, scheme] : kSchemes) {
    if (known == name) return scheme;
  }
  throw UserError(
      "quant",
      name,
      fmt::format(
          "no such scheme; the known are {}", fmt::join(scheme_names(), ", ")));
}

std::string scheme_name(const Scheme& scheme) {
  const auto found = std::ranges::find_if(
      kSchemes, [&](const auto& known) { return known.second == scheme; });
  FETTLE_ASSERT(found != kSchemes.end());
  return std::string(found->first);
}

std::optional<Part> part_of(Role role) {
  if (role == Role::kExpertDown) return Part::kDown;
  if (model::kExpertRoles.has(role)) return Part::kExperts;
  if (model::kSharedRoles.has(role)) return Part::kShared;
  if (model::kDenseRoles.has(role)) return Part::kDense;
  if (model::is_attention_role(role)) return Part::kAttention;
  if (role == Role::kEmbedTokens) return Part::kEmbeddings;
  if (role == Role::kLmHead) return Part::kHead;
  return std::nullopt;
}

std::string_view part_name(Part part) {
  const auto found = std::ranges::find_if(
      kParts, [&](const auto& known) { return known.first == part; });
  FETTLE_ASSERT(found != kParts.end());
  return found->second;
}

Json GridOptions::to_json() const {
  return {
      {"group", group},
      {"symmetric", symmetric ? Json(*symmetric) : Json("auto")},
      {"entropy_weight", entropy_weight}};
}

kernels::QuantGrid grid_of(
    const Scheme& scheme, const GridOptions& options, std::int64_t cols) {
  FETTLE_ASSERT(!scheme.keep);
  const std::int64_t row = std::max<std::int64_t>(cols, 1);
  const bool ints = scheme.kind == PackedKind::kInt;
  return {
      .kind = scheme.kind,
      .bits = scheme.bits,
      .symmetric = options.symmetric.value_or(!ints || scheme.bits > 3),
      .group = options.group == 0 ? row : std::min(options.group, row),
      .entropy_weight = options.entropy_weight};
}

model::PackedHeader planned_header(
    const Scheme& scheme,
    const GridOptions& options,
    std::int64_t rows,
    std::int64_t cols) {
  const kernels::QuantGrid grid = grid_of(scheme, options, cols);
  return {
      .kind = grid.kind,
      .bits = grid.kind == PackedKind::kInt ? grid.bits : 0,
      .rows = rows,
      .cols = cols,
      .group = grid.group,
      .zeros = grid.kind == PackedKind::kInt && !grid.symmetric,
      .codes_bytes =
          rows * kernels::packed_row_bytes(grid.kind, grid.bits, cols)};
}

}  // namespace fettle::quant
