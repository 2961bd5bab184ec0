// SPDX-License-Identifier: Apache-2.0
#include "tune/method/method_usaf.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "tune/method/sparse_method.h"
#include "tune/sparse/sparse_neurons.h"

namespace fettle::tune {

namespace {

SparseBlocksOptions usaf_blocks(const TuneOptions& options) {
  const bool single = options.unit == "element";
  const BlockShape one{1, 1};
  if (single && (!by_layer(options) || options.reselect_every > 0)) {
    throw UserError(
        "tune",
        "unit",
        "expected scope layer and reselect_every 0 with element, found others; "
        "a ranking of all single weights would take more memory than the model"
        "; change them, or take small blocks");
  }
  return {
      .name = "blocks",
      .roles = model::kExpertRoles.all(),
      .block = single ? one : parse_block(options.block, "block"),
      .score = BlockScore::kSquares,
      .sparse = sparse_options(options, kUsafMethod.name)};
}

std::vector<model::Role> usaf_roles(
    const TuneOptions& options, const model::ModelConfig&) {
  if (options.unit != "neuron") usaf_blocks(options);  // refuses early
  return model::kExpertRoles.all();
}

Parts usaf_make(const PartInput& input) {
  Parts parts;
  if (input.options.unit == "neuron") {
    SparseOptions options = sparse_options(input.options, kUsafMethod.name);
    options.owners = input.owners;
    parts.push_back(
        std::make_unique<SparseNeurons>(input.reader, input.device, options));
  } else {
    SparseBlocksOptions blocks = usaf_blocks(input.options);
    blocks.sparse.owners = input.owners;
    parts.push_back(
        std::make_unique<SparseBlocks>(input.reader, input.device, blocks));
  }
  return parts;
}

PartBytes usaf_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    at::Device device) {
  if (options.unit != "neuron") {
    return block_bytes(options, config, usaf_blocks(options), device);
  }
  std::int64_t neurons = 0;
  std::int64_t widest = 0;         // neurons of a layer
  std::int64_t widest_expert = 0;  // neurons
  for (const model::LayerConfig& layer : config.layers) {
    neurons += layer.total_width();
    widest = std::max(widest, layer.total_width());
    for (const std::int64_t width : layer.expert_widths) {
      widest_expert = std::max(widest_expert, width);
    }
  }
  const double chosen = std::ceil(options.frac * static_cast<double>(neurons));
  const double left = static_cast<double>(neurons) - chosen;
  // A new choice in a layer works on copies of its rows, a device on them in
  // its own type.
  const double working = std::min<double>(
      static_cast<double>(widest),
      by_layer(options) ? std::ceil(options.frac * static_cast<double>(widest))
                        : chosen);
  const double rows = 16.0 * chosen +
                      4.0 * std::min(frozen_share(options) * chosen, left) +
                      (options.reselect_every > 0 ? 24.0 : 2.0) * working;
  const auto hidden = static_cast<double>(config.hidden_size);
  // Scoring forms the gradient of one expert's gate and up in each thread.
  PartBytes bytes = at_work(
      3.0 * hidden * rows + 8.0 * hidden * static_cast<double>(widest_expert) *
                                static_cast<double>(at::get_num_threads()),
      device,
      3.0 * hidden * 12.0 * chosen);
  bytes.ram += ranking_bytes(
      options, static_cast<double>(neurons), static_cast<double>(widest));
  return bytes;
}

}  // namespace

const Method kUsafMethod{
    "usaf",
    "the few neurons of all experts with the largest gradients",
    usaf_roles,
    usaf_make,
    usaf_bytes};

}  // namespace fettle::tune
