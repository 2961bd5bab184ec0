// SPDX-License-Identifier: Apache-2.0
#include "trim/repair_sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "trim/cut_layer.h"

namespace fettle::trim {
namespace {

using model::Role;

// Two streams share the memory for activations.
store::ActivationStoreOptions shared_store(const RidgeOptions& options) {
  store::ActivationStoreOptions result = options.activations;
  if (options.joint) {
    result.device_bytes /= 2;
    result.ram_bytes /= 2;
  }
  return result;
}

void watch(ExpertMoments& moments, sweep::LayerStream::Pass& pass) {
  pass.tap = &moments;
  pass.sums = [&](const sweep::SumVisitor& visit) {
    moments.for_each_sum(visit);
  };
}

}  // namespace

RepairSweep::RepairSweep(
    model::CausalLm& model,
    const artifact::TrimPlan& plan,
    const model::ModelConfig& trimmed,
    const std::vector<model::TokenBatch>& data,
    const RidgeOptions& options)
    : model_(model),
      plan_(plan),
      trimmed_(trimmed),
      options_(options),
      stream_(model, data, shared_store(options), options.division) {
  if (stream_.tokens() == 0) {
    throw UserError(
        "trim",
        "data",
        "expected at least one token of calibration data, found none");
  }
  if (options.joint) {
    original_.emplace(model, data, shared_store(options), options.division);
  }
  report_.tokens = stream_.tokens();
  report_.error_left.assign(plan.layers.size(), 0.0);
}

const RepairedLayer& RepairSweep::layer(std::int64_t layer) {
  FETTLE_ASSERT(next_ <= layer + 1);
  while (next_ <= layer) {
    const bool last = next_ + 1 == model_.config().num_layers();
    options_.joint ? pass_layer_jointly(next_, last) : pass_layer(next_, last);
    ++next_;
  }
  return current_;
}

void RepairSweep::require_finite(std::int64_t layer, double sum) {
  if (std::isfinite(sum)) return;
  throw UserError(
      "trim",
      fmt::format("layer {}", layer),
      "expected activations to fit experts to, found some that are not finite; "
      "check the model's weights, or compute in fp32");
}

bool RepairSweep::needs_moments(std::int64_t layer, std::size_t place) const {
  const artifact::ExpertPlan& expert = plan_.layers[layer].experts[place];
  const std::int64_t kept = expert.width();
  const auto& widths = model_.config().layers[layer].expert_widths;
  return kept < widths[expert.expert] && (kept > 0 || options_.constant);
}

void RepairSweep::pass_layer(std::int64_t layer, bool last) {
  const at::NoGradGuard no_grad;
  const artifact::LayerPlan& plan = plan_.layers[layer];
  const auto& widths = model_.config().layers[layer].expert_widths;
  const auto whole = model_.acquire(layer, last ? -1 : layer + 1);
  const bool cut = cuts_neurons(plan, widths);
  current_ = {};
  // The experts that the tokens are shown to: all of them, or those that stay.
  std::vector<std::int64_t> slots = plan.kept_experts();
  std::vector<std::int64_t> shown = widths;
  if (options_.trimmed_inputs) {
    shown.clear();
    for (const std::int64_t e : slots) shown.push_back(widths[e]);
    std::iota(slots.begin(), slots.end(), 0);
  }
  ExpertMoments moments(shown, model_.options().device);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    if (needs_moments(layer, i)) moments.want(slots[i]);
  }
  if (!options_.trimmed_inputs) {
    sweep::LayerStream::Pass pass{model_.config(), layer, *whole};
    if (cut) watch(moments, pass);
    stream_.advance(pass);
    moments.end_sums();
    if (cut) refit_layer(layer, moments, slots);
    return;
  }
  if (cut) {
    const auto staying = cut_layer(*whole, whole_experts(plan, widths));
    sweep::LayerStream::Pass pass{trimmed_, layer, staying};
    watch(moments, pass);
    stream_.look(pass);
    moments.end_sums();
    refit_layer(layer, moments, slots);
  }
  if (last) return;
  const bool sparse = model_.config().layers[layer].sparse;
  const auto repaired = sparse ? repaired_weights(layer, *whole) : *whole;
  stream_.advance({trimmed_, layer, repaired});
}

void RepairSweep::refit_layer(
    std::int64_t layer,
    ExpertMoments& moments,
    const std::vector<std::int64_t>& slots) {
  const artifact::LayerPlan& plan = plan_.layers[layer];
  const double lambda = options_.lambda * moments.mean_energy();
  current_.down.resize(plan.experts.size());
  if (options_.constant) {
    current_.constant = at::zeros(
        {static_cast<std::int64_t>(plan.experts.size()),
         model_.config().hidden_size});
  }
  require_finite(layer, lambda);
  error_before_ = error_after_ = 0;
  for (std::size_t i = 0; i < plan.experts.size(); ++i) {
    if (!needs_moments(layer, i)) continue;
    const std::int64_t tokens = moments.tokens(slots[i]);
    if (tokens == 0) {
      ++report_.unhit;
      continue;
    }
    ++report_.refitted;
    report_.scarce += tokens < plan.experts[i].width() ? 1 : 0;
    refit_expert(layer, i, moments.take(slots[i]), lambda);
  }
  if (error_before_ > 0) {
    report_.error_left[layer] = std::max(error_after_, 0.0) / error_before_;
  }
}

void RepairSweep::refit_expert(
    std::int64_t layer,
    std::size_t place,
    const Moments& moments,
    double lambda) {
  // No other moment is larger than those on the diagonal.
  require_finite(
      layer, moments.second.diagonal().sum(at::kDouble).item<double>());
  const artifact::ExpertPlan& expert = plan_.layers[layer].experts[place];
  const at::Tensor down =
      model_.reader().read({Role::kExpertDown, layer, expert.expert});
  const Refit refit =
      refit_down(down, moments, expert.neurons, {lambda, options_.constant});
  error_before_ += refit.error_before;
  error_after_ += refit.error_after;
  current_.down[place] = refit.down.to(down.scalar_type()).contiguous();
  if (refit.constant.defined()) {
    current_.constant[static_cast<std::int64_t>(place)].copy_(refit.constant);
  }
}

model::LayerWeights RepairSweep::repaired_weights(
    std::int64_t layer, const model::LayerWeights& whole) const {
  model::LayerWeights result = cut_layer(whole, plan_.layers[layer]);
  model::ExpertBank& bank = result.experts;
  for (std::size_t e = 0; e < current_.down.size(); ++e) {
    if (!current_.down[e].defined()) continue;
    bank.down
        .narrow(0, bank.offsets[e], bank.width(static_cast<std::int64_t>(e)))
        .copy_(current_.down[e].t());
  }
  if (current_.constant.defined()) {
    const at::Tensor added = current_.constant.to(bank.down.options());
    bank.constant = bank.constant.defined() ? bank.constant + added : added;
  }
  return result;
}

Json RepairReport::to_json() const {
  return {
      {"tokens", tokens},
      {"refitted", refitted},
      {"scarce", scarce},
      {"unhit", unhit},
      {"error_left", error_left}};
}

sweep::StageMemory repair_memory(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const RidgeOptions& options) {
  const model::ModelConfig& config = reader.config();
  const std::int64_t hidden = config.hidden_size;
  sweep::StageMemory most;
  for (std::size_t l = 0; l < plan.layers.size(); ++l) {
    std::int64_t moments = 0;   // fp32
    std::int64_t solving = 0;   // fp64, of one expert at a time
    std::int64_t repaired = 0;  // as stored, at most fp32
    std::int64_t kept_neurons = 0;
    for (const artifact::ExpertPlan& expert : plan.layers[l].experts) {
      const std::int64_t width = config.layers[l].expert_widths[expert.expert];
      const std::int64_t kept = expert.width();
      kept_neurons += kept;
      if (kept == width || (kept == 0 && !options.constant)) continue;
      moments += 4 * width * width;
      // The moments and their halves; the matrix and its factor; W, its halves,
      // what is solved for, and copies of that.
      solving = std::max(
          solving,
          8 * (2 * width * width + 3 * kept * kept + 2 * hidden * width +
               4 * hidden * kept));
      repaired += 4 * hidden * kept;
    }
    if (options.joint) {
      // The fp32 sums; in fp64 the matrix and its factor, or two factors.
      moments = 4 * kept_neurons * (kept_neurons + hidden);
      solving = 8 * kept_neurons * (2 * kept_neurons + 4 * hidden);
      repaired = 4 * hidden * kept_neurons;
    }
    std::int64_t on_device = moments;
    if (options.trimmed_inputs || options.joint) {
      on_device += 3 * 4 * hidden * kept_neurons;  // the layer as cut
    }
    most.device_bytes = std::max(most.device_bytes, on_device);
    most.bytes = std::max(most.bytes, on_device + solving + repaired);
  }
  return most;
}

}  // namespace fettle::trim
