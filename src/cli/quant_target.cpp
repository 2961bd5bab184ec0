// SPDX-License-Identifier: Apache-2.0
#include "cli/quant_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "core/bytes.h"
#include "core/error.h"
#include "core/size_option.h"

namespace fettle::cli {
namespace {

using model::WeightId;
using quant::Scheme;

// Refined codes have no zero points unless these were asked for.
quant::GridOptions grid_for(const quant::GptqOptions& options, WeightId id) {
  quant::GridOptions grid = options.grid;
  const bool refines =
      options.method == quant::Method::kGptq && options.refine > 0;
  if (refines && id.layer >= 0) {
    grid.symmetric = grid.symmetric.value_or(true);
  }
  return grid;
}

std::optional<model::PackedHeader> header_of(
    const model::ModelReader& reader,
    const WeightId& id,
    const Scheme& scheme,
    const quant::GptqOptions& options) {
  const auto* const stored = reader.packed_header(id);
  if (scheme.keep) {
    return stored == nullptr ? std::nullopt : std::optional(*stored);
  }
  const auto shape = model::weight_shape(reader.config(), id);
  return quant::planned_header(
      scheme, grid_for(options, id), shape[0], shape[1]);
}

bool may_be_packed(const model::ModelConfig& config, const WeightId& id) {
  return quant::part_of(id.role) && model::weight_numel(config, id) > 0;
}

bool is_chosen(const QuantFlags& flags, const WeightId& id) {
  const auto parts = flags.allocated_parts();
  return std::ranges::find(parts, *quant::part_of(id.role)) != parts.end();
}

std::int64_t bytes_of(
    const QuantFlags& flags,
    const model::ModelReader& reader,
    const WeightId& id,
    const Scheme& scheme) {
  const auto header = header_of(reader, id, scheme, flags.gptq());
  return header ? header->bytes()
                : artifact::weight_bytes(reader.config(), id, reader.form(id));
}

Scheme smallest(
    const QuantFlags& flags,
    const model::ModelReader& reader,
    const WeightId& id) {
  const auto schemes = flags.candidate_schemes();
  return *std::ranges::min_element(schemes, {}, [&](const Scheme& scheme) {
    return bytes_of(flags, reader, id, scheme);
  });
}

// The largest group of those that the target's rows are whole numbers of.
void settle_group(QuantFlags& flags, const model::ModelReader& reader) {
  if (flags.group) return;
  constexpr std::array<std::int64_t, 4> kGroups{128, 64, 32, 16};
  const exporter::Target target = flags.target_kind();
  // A block of 32 has its own scale anyway.
  if (target == exporter::Target::kGguf) {
    flags.group = 32;
    return;
  }
  flags.group = kGroups.front();
  if (!exporter::wants_uniform(target)) return;
  const std::int64_t hidden = reader.config().hidden_size;
  for (const std::int64_t group : kGroups) {
    flags.group = group;
    if (hidden % group == 0) return;
  }
  flags.group = kGroups.front();
}

// The schemes of experts and of their down projections that take the most bytes
// within the budget.
void settle_schemes(QuantFlags& flags, const model::ModelReader& reader) {
  if (!exporter::wants_uniform(flags.target_kind()) || flags.budget.empty()) {
    return;
  }
  const std::int64_t budget = parse_size(flags.budget, "--budget");
  std::string reason;
  std::optional<TargetWeight> best, least;
  std::pair<std::string, std::string> chosen;
  const std::string down = flags.down;
  for (const std::string& experts : flags.candidates) {
    for (const std::string& other : flags.candidates) {
      if (!down.empty() && down != other) continue;
      QuantFlags some = flags;
      some.budget.clear();
      some.bits = experts;
      some.down = other;
      std::optional<TargetWeight> weight;
      try {
        weight = weigh(some, reader);
      } catch (const UserError& error) {
        if (experts == other) reason = error.what();
        continue;
      }
      if (!least || weight->bytes < least->bytes) least = weight;
      if (weight->bytes > budget) continue;
      if (best && weight->bytes <= best->bytes) continue;
      best = weight;
      chosen = {experts, other};
    }
  }
  if (!least) throw UserError("quant", "--for " + flags.target, reason);
  if (!best) {
    throw UserError(
        "quant",
        "budget",
        fmt::format(
            "{} is too little; the smallest of --candidates takes {} ({} "
            "bytes)",
            flags.budget,
            least->text(),
            least->bytes));
  }
  flags.bits = chosen.first;
  flags.down = chosen.second;
  flags.budget.clear();
}

// What no measuring can change: the bytes of the smallest candidates.
void check_budget(const QuantFlags& flags, const model::ModelReader& reader) {
  const auto schemes = flags.candidate_schemes();
  const bool known = std::ranges::none_of(
      schemes, [](const Scheme& scheme) { return scheme.coded; });
  if (!flags.allocates() || !known) return;
  std::int64_t bytes = 0;    // of weights with a choice
  std::int64_t numbers = 0;  // of these
  for (const WeightId& id : model::model_weights(reader.config())) {
    if (!may_be_packed(reader.config(), id) || !is_chosen(flags, id)) continue;
    bytes += bytes_of(flags, reader, id, smallest(flags, reader, id));
    numbers += model::weight_numel(reader.config(), id);
  }
  if (const auto mean = flags.mean_bits()) {
    const double least =
        8 * static_cast<double>(bytes) /
        static_cast<double>(std::max<std::int64_t>(numbers, 1));
    if (*mean >= least) return;
    throw UserError(
        "quant",
        "average-bits",
        fmt::format(
            "{:g} bits a weight are too few; the smallest of --candidates take "
            "{:.3f}, scales included",
            *mean,
            least));
  }
  const TargetWeight least = weigh(flags, reader);
  if (least.bytes <= parse_size(flags.budget, "--budget")) return;
  throw UserError(
      "quant",
      "budget",
      fmt::format(
          "{} is too little; the smallest of --candidates takes {} ({} bytes)",
          flags.budget,
          format_bytes(least.bytes),
          least.bytes));
}

}  // namespace

void settle(QuantFlags& flags, const model::ModelReader& reader) {
  settle_group(flags, reader);
  settle_schemes(flags, reader);
  check_budget(flags, reader);
}

TargetWeight weigh(const QuantFlags& flags, const model::ModelReader& reader) {
  const quant::Schemes schemes = flags.schemes();
  return weigh(flags, reader, [&](const WeightId& id) {
    return flags.allocates() && is_chosen(flags, id)
               ? smallest(flags, reader, id)
               : schemes.at(*quant::part_of(id.role));
  });
}

TargetWeight weigh(
    const QuantFlags& flags,
    const model::ModelReader& reader,
    const SchemeOf& scheme) {
  const quant::GptqOptions options = flags.gptq();
  const PlannedModel planned{
      reader.config(),
      reader.name(),
      [&](const WeightId& id) { return reader.dtype(id); },
      [&](const WeightId& id) -> std::optional<model::PackedHeader> {
        if (!may_be_packed(reader.config(), id)) return std::nullopt;
        return header_of(reader, id, scheme(id), options);
      },
      reader.carried_bytes()};
  return weigh(planned, flags.target_kind());
}

}  // namespace fettle::cli
