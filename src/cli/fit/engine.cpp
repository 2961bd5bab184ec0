// SPDX-License-Identifier: Apache-2.0
#include "cli/fit/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

#include "artifact/model_writer.h"
#include "cli/target_weight.h"
#include "core/bytes.h"
#include "core/error.h"

namespace fettle::cli {
namespace {

using model::WeightId;
using quant::Scheme;

// The plan's configuration, and the schemes of its weights.
class PlannedShape {
 public:
  explicit PlannedShape(const PlannedFit& planned)
      : planned_(planned),
        config_(planned.reader.config()),
        schemes_(planned.table, planned.plan) {
    const chain::PriceTable& table = planned.table;
    for (std::size_t e = 0; e < table.experts.size(); ++e) {
      const chain::ExpertPrice& expert = table.experts[e];
      config_.layers[expert.layer].expert_widths[expert.expert] =
          planned.plan.experts[e].width;
    }
  }

  const model::ModelConfig& config() const { return config_; }

  std::optional<model::PackedHeader> header(const WeightId& id) const {
    if (model::weight_numel(config_, id) == 0) return std::nullopt;
    const Scheme* const scheme = schemes_.find(id);
    if (scheme == nullptr || scheme->keep) {
      const auto* const stored = planned_.reader.packed_header(id);
      return stored == nullptr ? std::nullopt : std::optional(*stored);
    }
    const auto shape = model::weight_shape(config_, id);
    return quant::planned_header(
        *scheme, planned_.table.grid, shape[0], shape[1]);
  }

 private:
  const PlannedFit& planned_;
  model::ModelConfig config_;
  chain::PlannedSchemes schemes_;
};

// The fewest bytes of a weight by any of the schemes.
std::int64_t least_bytes(
    const model::ModelReader& reader,
    const model::ModelConfig& config,
    const chain::EngineNeeds& needs,
    const WeightId& id) {
  std::int64_t least = artifact::weight_bytes(config, id, reader.form(id));
  if (!quant::part_of(id.role) || model::weight_numel(config, id) == 0) {
    return least;
  }
  const auto part = std::string(quant::part_name(*quant::part_of(id.role)));
  const bool open = model::is_expert_role(id.role) ||
                    std::ranges::find(needs.parts, part) != needs.parts.end();
  if (!open) return least;
  quant::GridOptions grid;
  grid.symmetric = true;
  if (needs.group > 0) grid.group = needs.group;
  const auto shape = model::weight_shape(config, id);
  for (const std::string& name : needs.schemes) {
    const Scheme scheme = quant::parse_scheme(name);
    if (scheme.keep) continue;
    least = std::min(
        least, quant::planned_header(scheme, grid, shape[0], shape[1]).bytes());
  }
  return least;
}

}  // namespace

void require_least(
    const model::ModelReader& reader,
    const chain::EngineNeeds& needs,
    std::int64_t budget) {
  model::ModelConfig config = reader.config();
  for (model::LayerConfig& layer : config.layers) {
    for (std::int64_t& width : layer.expert_widths) {
      width = std::min(width, needs.rules.min_width);
    }
  }
  chain::ByPart parts;
  for (const WeightId& id : model::model_weights(config)) {
    parts[chain::fit_part_of(id.role)] +=
        least_bytes(reader, config, needs, id);
  }
  parts[chain::FitPart::kCarried] += reader.carried_bytes();
  if (budget >= parts.total()) return;
  throw UserError(
      "fit",
      "budget",
      fmt::format(
          "expected at least {} for the weights ({}), found {}",
          format_bytes(parts.total()),
          parts.text(),
          format_bytes(budget)));
}

std::int64_t engine_bytes(const PlannedFit& planned) {
  if (planned.engine.target == exporter::Target::kFettle) {
    return planned.plan.bytes;
  }
  const PlannedShape shape(planned);
  const PlannedModel model{
      shape.config(),
      planned.reader.name(),
      [&](const WeightId& id) { return planned.reader.dtype(id); },
      [&](const WeightId& id) { return shape.header(id); },
      planned.reader.carried_bytes()};
  return weigh(model, planned.engine.target).bytes;
}

chain::Footprint planned_footprint(const PlannedFit& planned) {
  const PlannedShape shape(planned);
  const chain::Candidate candidate(
      planned.source,
      planned.engine,
      chain::PlannedWeights{
          shape.config(), [&](const WeightId& id) { return shape.header(id); }},
      planned.request.on_card());
  if (!candidate.why_not().empty()) return {};
  return candidate.footprint(planned.request.context, planned.request.parallel);
}

}  // namespace fettle::cli
