// SPDX-License-Identifier: Apache-2.0
#include "tune/method/method_full.h"

#include <algorithm>
#include <set>

#include "core/error.h"
#include "text/regex.h"
#include "tune/method/method_options.h"
#include "tune/part/row_pieces.h"
#include "tune/whole/stored_weights.h"
#include "tune/whole/whole_weights.h"

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

bool is_trainable(const TuneOptions& options, const model::WeightId& id) {
  switch (id.role) {
    case model::Role::kRouterCorrection:
      return false;  // has no gradient
    case model::Role::kLayerScalar:
      return false;  // no parameter to other programs either
    case model::Role::kEmbedTokens:
    case model::Role::kLmHead:
      return options.embeddings == "train";
    default:
      return true;
  }
}

// Weights whose Hugging Face name the pattern finds a place in, those outside
// the layers first.
WeightIds matching(
    const TuneOptions& options, const model::ModelConfig& config) {
  const text::Regex pattern = compiled(options.match);
  text::Regex::Matcher matcher(pattern);
  text::Span found{};
  WeightIds ids;
  for (const model::WeightId& id : model::model_weights(config)) {
    if (model::weight_numel(config, id) == 0) continue;
    if (!is_trainable(options, id)) continue;
    if (matcher.find(model::weight_name(config, id), 0, found)) {
      ids.push_back(id);
    }
  }
  std::ranges::stable_partition(
      ids, [](const model::WeightId& id) { return id.layer < 0; });
  if (ids.empty()) {
    throw UserError(
        "tune",
        "match",
        "expected a pattern that names weights to train, found none for '" +
            options.match + "'; inspect lists them");
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
  WholeOptions whole{
      .name = kPart,
      .weights = matching(options, input.reader.config()),
      .schedule = schedule_of(options, kFullMethod.name),
      .adamw = adamw_options(options)};
  Parts parts;
  if (options.states != "disk") {
    whole.owners = input.owners;
    parts.push_back(std::make_unique<WholeWeights>(
        input.reader,
        options.states == "ram" ? at::Device(at::kCPU) : input.device,
        std::move(whole)));
  } else {
    parts.push_back(std::make_unique<StoredWeights>(
        input.reader,
        StoredWeightsOptions{
            .whole = std::move(whole),
            .folder = input.folder,
            .clip_norm = options.clip_norm}));
  }
  return parts;
}

// Weights to train, in values.
struct Sizes {
  double layers = 0.0;
  double largest_layer = 0.0;
  double matrices = 0.0;  // of the largest layer, outside its experts
  double globals = 0.0;
  double head = 0.0;        // also of a tied one
  double embeddings = 0.0;  // rows that a step's tokens reach at most
  double piece = 0.0;       // the most that is updated at a time
  double all() const { return layers + globals; }
};

Sizes sizes_of(const TuneOptions& options, const model::ModelConfig& config) {
  Sizes sizes;
  std::vector<double> layers(config.layers.size());
  std::vector<double> matrices(config.layers.size());
  for (const auto& id : matching(options, config)) {
    const auto count = static_cast<double>(model::weight_numel(config, id));
    sizes.piece = std::max(
        sizes.piece, std::min(count, static_cast<double>(kPieceValues)));
    if (id.layer < 0) {
      sizes.globals += count;
      const bool embeddings = id.role == model::Role::kEmbedTokens;
      if (embeddings) {
        sizes.embeddings = static_cast<double>(
            std::min(options.tokens_per_step, config.vocab_size) *
            config.hidden_size);
      }
      if (id.role == model::Role::kLmHead ||
          (embeddings && config.tie_word_embeddings)) {
        sizes.head = count;
      }
      continue;
    }
    sizes.layers += count;
    layers[id.layer] += count;
    if (!model::is_expert_role(id.role)) matrices[id.layer] += count;
  }
  sizes.largest_layer = *std::ranges::max_element(layers);
  sizes.matrices = *std::ranges::max_element(matrices);
  return sizes;
}

PartBytes full_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    at::Device device) {
  const Sizes sizes = sizes_of(options, config);
  // Autograd's sums of matrices are of the compute type, beside those in fp32.
  const double narrow = device.is_cpu() ? 0.0 : 2.0 * sizes.matrices;
  const double layer = 4.0 * sizes.largest_layer + narrow;
  // Rows of embeddings as they grow, and the step's gradients to add.
  const double rows =
      8.0 * sizes.embeddings +
      (sizes.embeddings > 0.0
           ? 4.0 * static_cast<double>(
                       options.tokens_per_step * config.hidden_size)
           : 0.0);
  // Gradient, values, moments and change.
  const double update = 28.0 * sizes.piece;
  if (options.states == "disk") {
    // The head is done with before the layers begin, unless it is tied.
    const double head = 4.0 * sizes.head;
    PartBytes bytes = at_work(
        config.tie_word_embeddings ? head + layer : std::max(head, layer),
        device);
    bytes.ram += WeightStore::kUpdatesAtOnce * update + rows;
    return bytes;
  }
  const double states = 12.0 * sizes.all();
  const double gradients = 4.0 * sizes.layers;
  const double divided = 8.0 * sizes.layers + gradients;
  PartBytes bytes = at_work(4.0 * sizes.head, device);
  bytes.ram += rows;
  if (device.is_cpu() || options.states == "ram") {
    bytes.ram += states + gradients + update;
    bytes.divided_ram = divided;
    if (!device.is_cpu()) bytes.device += layer;
  } else {
    bytes.device += states + gradients + narrow + update;
    bytes.divided_device = divided;
  }
  return bytes;
}

DiskUse full_disk(
    const TuneOptions& options, const model::ModelConfig& config) {
  const Sizes sizes = sizes_of(options, config);
  // Two saved states of masters and moments.
  DiskUse use{.held = 24.0 * sizes.all()};
  if (options.states == "disk") {
    // Values of layers are read on either way, others for the next step.
    use.read = (2.0 * 4.0 + 12.0) * sizes.layers + (4.0 + 12.0) * sizes.globals;
    use.written = 12.0 * sizes.all();
  }
  return use;
}

}  // namespace

const Method kFullMethod{
    "full",
    "all weights, or those that --match names",
    full_roles,
    full_make,
    full_bytes,
    full_disk};

}  // namespace fettle::tune
