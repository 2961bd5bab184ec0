// SPDX-License-Identifier: Apache-2.0
#include "chain/engine_needs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <string_view>

#include "core/error.h"

namespace fettle::chain {
namespace {

// Blocks of llama.cpp's types of less than 4 bits.
constexpr std::int64_t kWideBlock = 256;

std::int64_t narrowest(const model::ModelConfig& config) {
  std::int64_t width = 0;
  for (const model::LayerConfig& layer : config.layers) {
    for (const std::int64_t own : layer.expert_widths) {
      if (own > 0 && (width == 0 || own < width)) width = own;
    }
  }
  return width;
}

// The largest group that rows of the model are whole numbers of and that leaves
// experts some widths to choose from; kernels want no less than 32.
std::int64_t group_of(const model::ModelConfig& config) {
  constexpr std::array<std::int64_t, 3> kGroups{128, 64, 32};
  constexpr std::int64_t kLeast = 16;
  constexpr std::int64_t kWidths = 4;
  const std::int64_t width = narrowest(config);
  std::int64_t found = kLeast;
  for (const std::int64_t group : kGroups) {
    if (config.hidden_size % group != 0 || width % group != 0) continue;
    found = group;
    if (group * kWidths <= width) break;
  }
  return found;
}

std::int64_t group_of(
    const Engine& engine,
    const model::ModelConfig& config,
    const std::string& bits_min) {
  if (engine.storage == Storage::kWords) return group_of(config);
  constexpr std::int64_t kBlock = 32;
  const bool wide = std::ranges::any_of(engine.schemes, [&](const auto& row) {
    return row.scheme == bits_min && row.group == kWideBlock;
  });
  return wide ? kWideBlock : kBlock;
}

}  // namespace

EngineNeeds needs_of(
    const Engine& engine,
    const model::ModelConfig& config,
    const std::string& bits_min) {
  EngineNeeds needs;
  needs.parts = {"experts", "shared", "dense", "attention"};
  const bool words = engine.storage == Storage::kWords;
  if (!words) needs.parts.insert(needs.parts.end(), {"embeddings", "head"});
  const bool alike = exporter::wants_uniform(engine.target);
  if (alike) {
    needs.group = group_of(engine, config, bits_min);
    needs.rules.widths = Rules::Widths::kUniform;
    needs.rules.schemes = Rules::Schemes::kUniform;
    needs.rules.alike_others = words;
    needs.rules.one_scheme = words;
    needs.rules.multiple =
        std::lcm(exporter::width_unit(engine.target), needs.group);
    needs.rules.min_width = std::min(
        needs.rules.multiple, std::max<std::int64_t>(narrowest(config), 1));
  }
  // What its loaders find in stacks stays as it is.
  const bool stacked =
      words && model::weight_row(config, model::Role::kExpertUp).stacked_only;
  bool reached = false;
  for (const SchemeRow& row : engine.schemes) {
    if (needs.group > 0 && row.group > needs.group) break;
    if (stacked && row.scheme != std::string_view("keep")) break;
    needs.schemes.emplace_back(row.scheme);
    reached = row.scheme == bits_min;
    if (reached) break;
  }
  if (bits_min.empty() || reached) return needs;
  throw UserError(
      "fit",
      "--bits-min",
      fmt::format("{} has no place for {}", engine.name, bits_min));
}

}  // namespace fettle::chain
