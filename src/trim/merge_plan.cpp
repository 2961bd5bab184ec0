// SPDX-License-Identifier: Apache-2.0
#include "trim/merge_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "model/layers/experts.h"
#include "trim/cut_layer.h"

namespace fettle::trim {
namespace {

// What the methods compare experts by, summed over tokens.
class MergeStatistics : public sweep::Observer {
 public:
  MergeStatistics(const model::ModelConfig& config, bool outputs)
      : layers_(config.layers.size()), outputs_(outputs) {}

  struct Layer {
    at::Tensor gram;     // [E, E] fp64 of router logits
    at::Tensor tokens;   // [E] int64
    at::Tensor outputs;  // [E, H] fp64, of every expert for all tokens
    double rows = 0;     // tokens
  };
  const Layer& layer(std::size_t l) const { return layers_[l]; }

  void begin_layer(
      sweep::Pass, std::int64_t, model::LayerWeights& weights) override {
    weights_ = &weights;
  }

  void on_routing(std::int64_t l, const model::RoutingView& view) override {
    const at::NoGradGuard no_grad;
    Layer& layer = layers_[l];
    const at::Tensor logits = view.logits.to(at::kDouble);
    const at::Tensor gram = at::mm(logits.t(), logits).cpu();
    const at::Tensor tokens =
        at::bincount(view.selected.flatten(), {}, logits.size(1)).cpu();
    layer.gram = layer.gram.defined() ? layer.gram + gram : gram;
    layer.tokens = layer.tokens.defined() ? layer.tokens + tokens : tokens;
    if (outputs_) add_outputs(l, view);
  }

 private:
  // Every token passes every expert.
  void add_outputs(std::int64_t l, const model::RoutingView& view) {
    const std::int64_t rows = view.x.size(0);
    const at::Tensor one = at::ones({rows, 1}, view.weights.options());
    std::vector<at::Tensor> sums;
    const model::ExpertBank& experts = weights_->experts;
    for (std::int64_t e = 0; e < experts.size(); ++e) {
      const at::Tensor chosen = at::full({rows, 1}, e, view.selected.options());
      sums.push_back(model::experts_forward({l, experts}, view.x, {chosen, one})
                         .sum(0, false, at::kFloat)
                         .to(at::kDouble)
                         .cpu());
    }
    Layer& layer = layers_[l];
    at::Tensor all = at::stack(sums);
    const at::Tensor& scales = weights_->expert_scale;
    if (scales.defined()) all = all * scales.to(all.options()).unsqueeze(1);
    layer.outputs = layer.outputs.defined() ? layer.outputs + all : all;
    layer.rows += static_cast<double>(rows);
  }

  std::vector<Layer> layers_;
  bool outputs_;
  const model::LayerWeights* weights_ = nullptr;
};

void check_mergeable(
    const artifact::TrimPlan& plan, const model::ModelConfig& config) {
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    const auto& widths = config.layers[l].expert_widths;
    if (widths.empty()) continue;
    if (!config.layers[l].condensers.empty()) {
      throw UserError(
          "trim",
          fmt::format("layer {}", l),
          fmt::format(
              "merging averages experts that the router chooses, found {} that "
              "work on every token; trim without merge",
              config.layers[l].condensers.size()));
    }
    const auto [least, most] = std::ranges::minmax_element(widths);
    if (*least != *most) {
      throw UserError(
          "trim",
          fmt::format("layer {}", l),
          fmt::format(
              "merging needs experts of one width, found {} to {}; merge "
              "before neurons are cut",
              *least,
              *most));
    }
    if (cuts_neurons(plan.layers[l], widths)) {
      throw UserError(
          "trim",
          fmt::format("layer {}", l),
          "merging keeps whole experts, but the plan cuts neurons; plan with "
          "unit expert");
    }
  }
}

std::vector<std::int64_t> to_list(const at::Tensor& values) {
  const std::int64_t* data = values.const_data_ptr<std::int64_t>();
  return {data, data + values.numel()};
}

// Clusters the experts of every router group for itself, so that each keeps
// equally many.
std::vector<ExpertGroup> cluster_layer(
    const MergeStatistics::Layer& layer,
    std::int64_t kept,
    std::int64_t router_groups) {
  const std::vector<std::int64_t> tokens = to_list(layer.tokens);
  const auto experts = static_cast<std::int64_t>(tokens.size());
  const std::int64_t size = experts / router_groups;
  std::vector<ExpertGroup> result;
  for (std::int64_t first = 0; first < experts; first += size) {
    const std::vector<std::int64_t> own(
        tokens.begin() + first, tokens.begin() + first + size);
    auto clusters = cluster_by_output(
        layer.outputs.narrow(0, first, size) / layer.rows,
        own,
        kept / router_groups);
    for (ExpertGroup& cluster : clusters) {
      for (std::int64_t& expert : cluster) expert += first;
      result.push_back(std::move(cluster));
    }
  }
  return result;
}

}  // namespace

MergePlan plan_merge(
    const MergeInput& input, const artifact::TrimPlan& plan, Merge merge) {
  const model::ModelConfig& config = input.model.config();
  plan.check_against(config);
  check_mergeable(plan, config);
  if (input.data.empty()) {
    throw UserError(
        "trim",
        "data",
        "expected at least one token of calibration data, found none");
  }
  MergeStatistics statistics(config, merge == Merge::kHcSmoe);
  sweep::Sweep sweep(input.model, input.data, input.sweep);
  sweep::Observer* const observers[] = {&statistics};
  sweep.forward(observers, {});
  MergePlan result{plan, {}};
  result.experts.align = merge == Merge::kMSmoe;
  result.plan.options["merge"] = merge == Merge::kMSmoe ? "m_smoe" : "hc_smoe";
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    artifact::LayerPlan& layer = result.plan.layers[l];
    result.experts.groups.emplace_back();
    result.experts.tokens.emplace_back();
    if (layer.experts.empty()) continue;
    const MergeStatistics::Layer& seen = statistics.layer(l);
    const std::vector<std::int64_t> kept = layer.kept_experts();
    auto groups = merge == Merge::kMSmoe
                      ? group_by_router(seen.gram, kept)
                      : cluster_layer(
                            seen,
                            static_cast<std::int64_t>(kept.size()),
                            config.router.groups);
    for (std::size_t i = 0; i < groups.size(); ++i) {
      layer.experts[i].expert = groups[i].front();
    }
    result.experts.groups.back() = std::move(groups);
    result.experts.tokens.back() = to_list(seen.tokens);
  }
  return result;
}

std::int64_t merge_bytes(const model::ModelConfig& config) {
  std::int64_t most = 0;
  for (const model::LayerConfig& layer : config.layers) {
    if (!layer.sparse) continue;
    const std::int64_t width = *std::ranges::max_element(layer.expert_widths);
    // fp64: two experts and their sum; costs to match neurons; means.
    most = std::max(
        most,
        8 * (4 * 3 * width * config.hidden_size + 2 * width * width +
             layer.num_experts() *
                 (2 * layer.num_experts() + width + 2 * config.hidden_size)));
  }
  return most;
}

}  // namespace fettle::trim
