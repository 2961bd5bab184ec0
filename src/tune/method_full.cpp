// SPDX-License-Identifier: Apache-2.0
#include "tune/method_full.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "text/regex.h"
#include "tune/method_options.h"
#include "tune/stored_weights.h"
#include "tune/whole_weights.h"

namespace fettle::tune {

namespace {

constexpr const char* kPart = "weights";

text::Regex compiled(const std::string& pattern) {
  try {
    return {pattern, "match"};
  } catch (const UserError& error) {
    throw UserError("tune", "match", error.what());
  }
}

// Weights of layers whose Hugging Face name the pattern finds a place in.
WeightIds matching(
    const TuneOptions& options, const model::ModelConfig& config) {
  const text::Regex pattern = compiled(options.match);
  text::Regex::Matcher matcher(pattern);
  text::Span found{};
  WeightIds ids;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    for (const model::WeightId& id : model::layer_weights(config, l)) {
      if (model::weight_numel(config, id) == 0) continue;
      if (id.role == model::Role::kRouterCorrection) continue;  // no gradient
      if (matcher.find(model::weight_name(config, id), 0, found)) {
        ids.push_back(id);
      }
    }
  }
  if (ids.empty()) {
    throw UserError(
        "tune",
        "match",
        "expected a pattern that names weights of layers, found none for '" +
            options.match +
            "'; inspect lists them (embeddings and head are not tuned)");
  }
  return ids;
}

std::vector<model::Role> full_roles(
    const TuneOptions& options, const model::ModelConfig& config) {
  std::set<model::Role> roles;
  for (const auto& id : matching(options, config)) roles.insert(id.role);
  return {roles.begin(), roles.end()};
}

Parts full_make(const PartInput& input) {
  const TuneOptions& options = input.options;
  const WeightIds ids = matching(options, input.reader.config());
  Parts parts;
  if (options.states == "ram") {
    parts.push_back(std::make_unique<WholeWeights>(
        input.reader,
        input.device,
        WholeWeightsOptions{
            .name = kPart,
            .weights = ids,
            .schedule = schedule_of(options),
            .adamw = adamw_options(options)}));
  } else {
    parts.push_back(std::make_unique<StoredWeights>(
        input.reader,
        StoredWeightsOptions{
            .name = kPart,
            .folder = input.folder,
            .weights = ids,
            .clip_norm = options.clip_norm,
            .schedule = schedule_of(options),
            .adamw = adamw_options(options)}));
  }
  return parts;
}

double full_bytes(
    const TuneOptions& options, const model::ModelConfig& config) {
  std::vector<double> layers(config.layers.size());
  double all = 0.0;
  double largest = 0.0;
  for (const auto& id : matching(options, config)) {
    const auto count = static_cast<double>(model::weight_numel(config, id));
    layers[id.layer] += count;
    all += count;
    largest = std::max(largest, count);
  }
  if (options.states == "ram") return 16.0 * all;
  // A layer's gradients, and one weight's masters, moments and change.
  return 4.0 * *std::ranges::max_element(layers) + 24.0 * largest;
}

DiskUse full_disk(
    const TuneOptions& options, const model::ModelConfig& config) {
  if (options.states == "ram") {
    return saved_from_memory(full_bytes(options, config));
  }
  double values = 0.0;
  for (const auto& id : matching(options, config)) {
    values += static_cast<double>(model::weight_numel(config, id));
  }
  // Two files of masters and moments; the values are read on either way.
  return {
      .held = 24.0 * values,
      .read = (2.0 * 4.0 + 12.0) * values,
      .written = 12.0 * values};
}

}  // namespace

const Method kFullMethod{
    "full",
    "all weights of the layers, or those that --match names",
    full_roles,
    full_make,
    full_bytes,
    full_disk};

}  // namespace fettle::tune
