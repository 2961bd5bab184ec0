// SPDX-License-Identifier: Apache-2.0
#include "tune/method/method_esft.h"

#include <fmt/format.h>

#include "tune/method/expert_shares.h"
#include "tune/method/method_options.h"
#include "tune/method/sparse_method.h"
#include "tune/whole/whole_weights.h"

namespace fettle::tune {

namespace {

// An expert's own tensors. Biases of its output are a row of a tensor of the
// layer, and stay as they are.
std::vector<model::Role> esft_roles(
    const TuneOptions&, const model::ModelConfig& config) {
  std::vector<model::Role> roles = model::kExpertRoles.all();
  if (config.expert_bias) {
    roles.push_back(model::Role::kExpertGateBias);
    roles.push_back(model::Role::kExpertUpBias);
  }
  return roles;
}

// All weights of the fewest experts of each layer that hold the share.
WeightIds choose(
    const TuneOptions& options,
    const model::ModelConfig& config,
    const PrepareInput& input) {
  ExpertShares seen(
      config, options.esft_by == "gate" ? ShareOf::kGates : ShareOf::kTokens);
  input.forward_probe(seen, {options.score_sequences});
  const auto shares = seen.shares();
  const auto roles = esft_roles(options, config);
  WeightIds ids;
  std::size_t experts = 0;
  for (std::size_t l = 0; l < shares.size(); ++l) {
    for (const auto expert : fewest_experts(shares[l], options.esft_share)) {
      ++experts;
      if (config.layers[l].expert_widths[expert] == 0) continue;
      for (const model::Role role : roles) {
        if (!model::role_info(role).exists(config, config.layers[l])) continue;
        ids.push_back({role, static_cast<std::int64_t>(l), expert});
      }
    }
  }
  input.reporter.note(fmt::format(
      "{} experts are trained, which hold {:.0f} % of the {}",
      experts,
      100.0 * options.esft_share,
      options.esft_by == "gate" ? "mixing weights" : "choices"));
  return ids;
}

Parts esft_make(const PartInput& input) {
  Parts parts;
  parts.push_back(std::make_unique<WholeWeights>(
      input.reader,
      input.device,
      WholeOptions{
          .name = "experts",
          .schedule = schedule_of(input.options, kEsftMethod.name),
          .adamw = adamw_options(input.options),
          .owners = input.owners},
      [options = input.options,
       &config = input.reader.config()](const PrepareInput& prepare) {
        return choose(options, config, prepare);
      }));
  return parts;
}

// The experts are not chosen yet. A share p of the choices is held by at most a
// share p of the experts, rounded up, since those used most come first.
PartBytes esft_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    at::Device device) {
  double weights = 0.0;
  for (const model::LayerConfig& layer : config.layers) {
    std::vector<std::int64_t> widths = layer.expert_widths;
    std::ranges::sort(widths, std::greater<>());
    const double most =
        std::ceil(options.esft_share * static_cast<double>(widths.size()));
    widths.resize(static_cast<std::size_t>(most));
    for (const auto width : widths) weights += static_cast<double>(width);
  }
  const auto inputs = static_cast<double>(model::inputs_of(config.activation));
  const auto hidden = static_cast<double>(config.hidden_size);
  const double of_neuron =
      (inputs + 1.0) * hidden + (config.expert_bias ? inputs : 0.0);
  return at_work(
      16.0 * of_neuron * weights, device, 12.0 * of_neuron * weights);
}

}  // namespace

const Method kEsftMethod{
    "esft",
    "all weights of the experts that the data uses most",
    esft_roles,
    esft_make,
    esft_bytes};

}  // namespace fettle::tune
