// SPDX-License-Identifier: Apache-2.0
#include "cli/target_weight.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "core/bytes.h"
#include "trim/packed_slices.h"
#include "trim/slice.h"
#include "trim/sliced_weights.h"

namespace fettle::cli {
namespace {

using model::WeightId;

// Keeps the headers that it was asked for, since planning points to them.
class HeaderStore {
 public:
  explicit HeaderStore(PackedHeaders make) : make_(std::move(make)) {}

  const model::PackedHeader* find(const WeightId& id) {
    const auto [place, added] =
        kept_.try_emplace(std::tuple(id.layer, id.role, id.expert));
    if (added) place->second = make_(id);
    return place->second ? &*place->second : nullptr;
  }

 private:
  PackedHeaders make_;
  std::map<
      std::tuple<std::int64_t, model::Role, std::int64_t>,
      std::optional<model::PackedHeader>>
      kept_;
};

// The header of an expert's matrix cut to `width`.
model::PackedHeader cut_header(
    const model::PackedHeader& header, const WeightId& id, std::int64_t width) {
  const bool down = id.role == model::Role::kExpertDown;
  return trim::resized(
      header, down ? header.rows : width, down ? width : header.cols);
}

// Experts of one width in all layers, the weights as the reader's lie.
std::int64_t bytes_at(
    const model::ModelReader& reader,
    exporter::Target target,
    std::int64_t width) {
  model::ModelConfig config = reader.config();
  for (model::LayerConfig& layer : config.layers) {
    std::ranges::fill(layer.expert_widths, width);
    if (model::adds_own(config, layer, model::Role::kExpertConstant)) {
      layer.has_constants = false;
    }
    if (model::adds_own(config, layer, model::Role::kRouterBias)) {
      layer.router_bias = false;
    }
    layer.condensers.clear();
  }
  const PlannedModel planned{
      config,
      reader.name(),
      [&](const WeightId& id) { return reader.dtype(id); },
      [&](const WeightId& id) -> std::optional<model::PackedHeader> {
        const auto* const header = reader.packed_header(id);
        if (header == nullptr) return std::nullopt;
        return model::is_expert_role(id.role) ? cut_header(*header, id, width)
                                              : *header;
      },
      reader.carried_bytes()};
  return weigh(planned, target).bytes;
}

std::int64_t widest_of(const model::ModelConfig& config) {
  std::int64_t widest = 1;
  for (const model::LayerConfig& layer : config.layers) {
    for (const std::int64_t width : layer.expert_widths) {
      widest = std::max(widest, width);
    }
  }
  return widest;
}

}  // namespace

std::string TargetWeight::text() const {
  if (target == exporter::Target::kFettle) return format_bytes(bytes);
  return fmt::format(
      "{} as {}", format_bytes(bytes), exporter::format_name(format));
}

Json TargetWeight::to_json() const {
  return {{"format", exporter::format_name(format)}, {"bytes", bytes}};
}

TargetWeight weigh(const PlannedModel& planned, exporter::Target target) {
  HeaderStore headers(planned.packed);
  const exporter::SourceForms source{
      planned.config,
      planned.name,
      planned.dtype,
      [&](const WeightId& id) { return headers.find(id); },
      planned.carried_bytes};
  const auto ids = model::model_weights(planned.config);
  const bool packed = std::ranges::any_of(ids, [&](const WeightId& id) {
    return model::is_expert_role(id.role) && headers.find(id) != nullptr;
  });
  TargetWeight weight{target, exporter::format_for(target, packed), 0};
  // What --nearest of export is for: a trim need not say it.
  weight.bytes = exporter::exported_bytes(
      source, {.format = weight.format, .nearest_shape = true});
  return weight;
}

TargetWeight weigh(const TrimmedModel& trimmed, exporter::Target target) {
  if (target == exporter::Target::kFettle) {
    const auto sizes = trim::trimmed_size(
        trimmed.reader, trimmed.plan, trimmed.repair, trimmed.stored);
    return {target, exporter::format_for(target, false), sizes.after.bytes};
  }
  const model::ModelConfig config = trim::trimmed_config(
      trimmed.reader.config(), trimmed.plan, trimmed.repair);
  const auto source = [&](const WeightId& id) {
    if (id.expert < 0) return id;
    const auto& experts = trimmed.plan.layers[id.layer].experts;
    return WeightId{id.role, id.layer, experts[id.expert].expert};
  };
  const PlannedModel planned{
      config,
      trimmed.reader.name(),
      [&](const WeightId& id) {
        const auto stored = [&](const WeightId& one) {
          return trimmed.reader.dtype(source(one));
        };
        return id.role == model::Role::kExpertConstant
                   ? trim::constant_type(config, id, stored)
                   : stored(id);
      },
      [&](const WeightId& id) -> std::optional<model::PackedHeader> {
        const bool expert = model::is_expert_role(id.role);
        if (expert && trimmed.merges) return std::nullopt;
        const auto* const header = trimmed.reader.packed_header(source(id));
        if (header == nullptr) return std::nullopt;
        if (!expert) return *header;
        return cut_header(
            *header, id, config.layers[id.layer].expert_widths[id.expert]);
      },
      trimmed.reader.carried_bytes()};
  return weigh(planned, target);
}

trim::ModelBytes bytes_for(
    const model::ModelReader& reader,
    exporter::Target target,
    const trim::ModelBytesOptions& options) {
  trim::ModelBytes own = trim::model_bytes(reader, options);
  if (target == exporter::Target::kFettle) return own;
  std::int64_t experts = 0;
  for (const model::LayerConfig& layer : reader.config().layers) {
    experts += layer.num_experts();
  }
  if (experts == 0) return own;
  // Bytes grow by the same with each unit of width.
  const std::int64_t unit = exporter::width_unit(target);
  const std::int64_t width =
      (widest_of(reader.config()) + unit - 1) / unit * unit;
  const std::int64_t whole = bytes_at(reader, target, width);
  const std::int64_t more = bytes_at(reader, target, width + unit) - whole;
  trim::ModelBytes bytes;
  bytes.per_neuron = (more + unit * experts - 1) / (unit * experts);
  // A router's row: the one thing else that goes with an expert.
  const bool wide = target == exporter::Target::kGguf;
  bytes.per_expert = wide ? 4 * reader.config().hidden_size : own.per_expert;
  bytes.fixed = std::max<std::int64_t>(
      whole - experts * (bytes.per_expert + width * bytes.per_neuron), 0);
  return bytes;
}

}  // namespace fettle::cli
