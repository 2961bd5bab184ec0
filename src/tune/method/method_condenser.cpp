// SPDX-License-Identifier: Apache-2.0
#include "tune/method/method_condenser.h"

#include "tune/condenser/condenser.h"

namespace fettle::tune {

namespace {

std::vector<model::Role> condenser_roles(
    const TuneOptions&, const model::ModelConfig&) {
  return {model::Role::kRouterBias};
}

Parts condenser_make(const PartInput& input) {
  const TuneOptions& options = input.options;
  Parts parts;
  parts.push_back(std::make_unique<Condenser>(
      input.reader,
      input.device,
      CondenserOptions{
          .count = options.condensers,
          .after = options.condenser_after < 0 ? options.steps / 2
                                               : options.condenser_after,
          .rate = options.bias_rate,
          .condensed_rate = options.condenser_bias_rate,
          .score_sequences = options.score_sequences}));
  return parts;
}

// A bias, the sums of a step and of all steps.
PartBytes condenser_bytes(
    const TuneOptions&, const model::ModelConfig& config, at::Device device) {
  double experts = 0.0;
  for (const model::LayerConfig& layer : config.layers) {
    experts += static_cast<double>(layer.num_experts());
  }
  return at_work(24.0 * experts, device);
}

}  // namespace

const Method kCondenserMethod{
    "condenser",
    "no weights: biased routers, then starved experts on every token",
    condenser_roles,
    condenser_make,
    condenser_bytes};

}  // namespace fettle::tune
