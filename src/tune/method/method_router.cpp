// SPDX-License-Identifier: Apache-2.0
#include "tune/method/method_router.h"

#include "tune/method/method_options.h"
#include "tune/options/router_options.h"
#include "tune/whole/whole_weights.h"

namespace fettle::tune {

namespace {

std::vector<model::Role> router_roles(
    const TuneOptions&, const model::ModelConfig&) {
  return {model::Role::kRouter};
}

Parts router_make(const PartInput& input) {
  const TuneOptions& options = input.options;
  const std::int64_t frozen = frozen_router_steps(options);
  Parts parts;
  parts.push_back(std::make_unique<WholeWeights>(
      input.reader,
      input.device,
      WholeOptions{
          .name = "router",
          .weights = router_weights(input.reader.config()),
          .frozen_steps = frozen,
          .schedule =
              {peak_rate(
                   options,
                   is_router_method(options.method) ? options.method.c_str()
                                                    : kRouter),
               warmup_steps(options.warmup, options.steps - frozen),
               options.steps - frozen,
               options.min_lr_ratio},
          .adamw = adamw_options(options),
          .owners = input.owners}));
  return parts;
}

PartBytes router_bytes(
    const TuneOptions&, const model::ModelConfig& config, at::Device device) {
  double experts = 0.0;
  for (const model::LayerConfig& layer : config.layers) {
    experts += static_cast<double>(layer.num_experts());
  }
  const double weights = static_cast<double>(config.hidden_size) * experts;
  return at_work(16.0 * weights, device, 12.0 * weights);
}

}  // namespace

model::RouterTraining router_training(
    const TuneOptions& options, std::int64_t step) {
  model::RouterTraining training;
  training.seed = options.seed;
  training.step = static_cast<std::uint64_t>(step);
  training.dense_gradient = options.router == "densemixer";
  // The noise falls like RigL's share: half a cosine down to 0.
  if (options.router == "gumbel") {
    training.noise = cosine_fall(options.gumbel_noise, step, options.steps);
  }
  return training;
}

const Method kRouterMethod{
    kRouter,
    "the routers and nothing else",
    router_roles,
    router_make,
    router_bytes};

const Method kRouterKdMethod{
    kRouterKd,
    "the routers, so that the model speaks like --teacher",
    router_roles,
    router_make,
    router_bytes};

}  // namespace fettle::tune
