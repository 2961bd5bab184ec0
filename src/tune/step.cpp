// SPDX-License-Identifier: Apache-2.0
#include "tune/step.h"

#include <fmt/format.h>

#include <array>
#include <chrono>
#include <cmath>
#include <span>

#include "core/error.h"
#include "ranks/group.h"
#include "sweep/micro_batches.h"
#include "sweep/shard_sums.h"
#include "sweep/sweep.h"
#include "tune/finite_probe.h"
#include "tune/part/clipping.h"

namespace fettle::tune {

namespace {

// Seconds since the last call.
class Lap {
 public:
  double operator()() {
    const auto now = std::chrono::steady_clock::now();
    const std::chrono::duration<double> passed = now - last_;
    last_ = now;
    return passed.count();
  }

 private:
  std::chrono::steady_clock::time_point last_ =
      std::chrono::steady_clock::now();
};

// The lowest layer that anything is trained in: none below has a backward pass,
// unless the embeddings are trained.
std::int64_t first_trained(const Parts& parts, std::int64_t layers) {
  for (const auto& part : parts) {
    if (part->trains_embeddings()) return 0;
  }
  for (std::int64_t l = 0; l < layers; ++l) {
    for (const auto& part : parts) {
      if (part->trains(l)) return l;
    }
  }
  return layers;
}

std::vector<sweep::Observer*> observers_of(const Parts& parts) {
  std::vector<sweep::Observer*> observers;
  for (const auto& part : parts) observers.push_back(part.get());
  return observers;
}

// Squared norms of each layer's gradient and of what is outside the layers,
// part by part: [L + 1, parts] fp64, as the owners of the gradients know them.
at::Tensor norms_squared(const StepInput& input) {
  const std::int64_t layers = input.model.config().num_layers();
  at::Tensor norms =
      at::zeros({layers + 1, std::ssize(input.parts)}, at::kDouble);
  const ranks::Team& team = input.sweep_options.team;
  const bool several = team.divides() && team.ranks() > 1;
  double* next = norms.mutable_data_ptr<double>();
  for (std::int64_t l = 0; l <= layers; ++l) {
    const bool outside = l == layers;
    for (const auto& part : input.parts) {
      const std::int64_t owner = part->owner(outside ? -1 : l);
      if (!several || owner == team.group->rank()) {
        *next = outside ? part->global_gradient_norm_squared()
                        : part->gradient_norm_squared(l);
      }
      ++next;
    }
  }
  // One rank has each, and others have zeros.
  if (several) ranks::add_up(*team.group, norms);
  return norms;
}

// Layers are added in one order, so that the sum has the same bits each time.
void measure_gradient(const StepInput& input, StepResult& result) {
  const at::Tensor norms = norms_squared(input);
  const std::int64_t layers = input.model.config().num_layers();
  const std::int64_t parts = std::ssize(input.parts);
  const double* const all = norms.const_data_ptr<double>();
  double total = 0.0;
  for (std::int64_t l = layers - 1; l >= 0; --l) {
    for (std::int64_t p = 0; p < parts; ++p) total += all[l * parts + p];
    // The backward sweep meets the highest layer first.
    if (!std::isfinite(total) && result.failure.empty()) {
      result.failure =
          fmt::format("the gradient is not finite, first in layer {}", l);
    }
  }
  for (std::int64_t p = 0; p < parts; ++p) total += all[layers * parts + p];
  if (!std::isfinite(total) && result.failure.empty()) {
    result.failure = "the gradient of embeddings, head or norm is not finite";
  }
  result.grad_norm = std::sqrt(total);
}

void update(const StepInput& input, const StepResult& result) {
  const UpdateInput update{
      input.step, clip_scale(input.clip_norm, result.grad_norm)};
  for (std::int64_t l = 0; l < input.model.config().num_layers(); ++l) {
    for (const auto& part : input.parts) part->update(l, update);
  }
  for (const auto& part : input.parts) {
    part->update_globals(update);
    part->patch_globals(input.model.globals());
  }
}

// The loss and its gradient at the end of the forward sweep.
void finish_forward(
    const StepInput& input,
    sweep::Sweep& sweep,
    std::span<sweep::Observer* const> observers,
    StepResult& result) {
  const double mean = 1.0 / static_cast<double>(result.loss_tokens);
  if (input.teacher == nullptr) {
    result.nll = sweep::total(
                     sweep.token_nll_with_gradient(mean, observers),
                     input.sweep_options) *
                 mean;
    result.loss = result.nll;
    return;
  }
  const double kd = input.kd_weight;
  const auto losses = sweep.distill_with_gradient(
      *input.teacher, {.nll = (1.0 - kd) * mean, .kl = kd * mean}, observers);
  result.nll = sweep::total(losses.nll, input.sweep_options) * mean;
  result.kl = sweep::total(losses.kl, input.sweep_options) * mean;
  result.loss = (1.0 - kd) * result.nll + kd * result.kl;
}

double state_io_seconds(const Parts& parts) {
  double total = 0.0;
  for (const auto& part : parts) total += part->state_io_seconds();
  return total;
}

}  // namespace

StepResult run_step(const StepInput& input) {
  Lap lap;
  StepResult result;
  const double waited = input.model.waited_seconds();
  const double loaded = input.model.loading_seconds();
  const double stored = state_io_seconds(input.parts);
  result.loss_tokens = sweep::loss_tokens(input.batches);
  const ranks::Team& team = input.sweep_options.team;
  if (team.divides()) {
    result.loss_tokens = ranks::sum(*team.group, result.loss_tokens);
  }
  FETTLE_ASSERT(result.loss_tokens > 0);
  sweep::Sweep sweep(input.model, input.batches, input.sweep_options);
  const std::vector<sweep::Observer*> observers = observers_of(input.parts);
  std::vector<sweep::Observer*> forward_observers = observers;
  if (input.watcher != nullptr) forward_observers.push_back(input.watcher);
  sweep.forward(forward_observers, {.keep_boundaries = true});
  finish_forward(input, sweep, observers, result);
  result.forward_seconds = lap();
  if (!std::isfinite(result.loss)) {
    result.failure =
        "the loss is not finite, first " +
        locate_non_finite(input.model, input.batches, input.sweep_options);
    return result;
  }
  sweep.backward(
      observers, first_trained(input.parts, input.model.config().num_layers()));
  measure_gradient(input, result);
  result.backward_seconds = lap();
  result.wait_seconds = input.model.waited_seconds() - waited;
  result.weight_io_seconds = input.model.loading_seconds() - loaded;
  result.state_io_seconds = state_io_seconds(input.parts) - stored;
  if (!result.failure.empty()) return result;
  update(input, result);
  result.update_seconds = lap();
  return result;
}

bool has_finite_loss(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const sweep::SweepOptions& sweep_options) {
  sweep::Sweep sweep(model, batches, sweep_options);
  sweep.forward({}, {.keep_boundaries = false});
  return std::isfinite(sweep::total(sweep.token_nll(), sweep_options));
}

void probe_forward(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const sweep::SweepOptions& sweep_options,
    sweep::Observer& observer) {
  const std::array<sweep::Observer*, 1> observers{&observer};
  sweep::Sweep(model, batches, sweep_options).forward(observers, {});
}

void probe_gradient(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const sweep::SweepOptions& sweep_options,
    sweep::Observer& observer) {
  sweep::Sweep sweep(model, batches, sweep_options);
  const std::array<sweep::Observer*, 1> observers{&observer};
  sweep.forward(observers, {.keep_boundaries = true});
  if (!std::isfinite(
          sweep::total(sweep.token_nll_with_gradient(1.0), sweep_options))) {
    throw UserError(
        "tune",
        "loss",
        "expected a finite loss before choosing what to train, found none, "
        "first " +
            locate_non_finite(model, batches, sweep_options) +
            "; evaluate the model first");
  }
  sweep.backward(observers);
}

}  // namespace fettle::tune
