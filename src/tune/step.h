// SPDX-License-Identifier: Apache-2.0
// One step of training: a forward and a backward sweep over the step's tokens,
// clipping by the norm of the whole gradient, one update of every part.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/causal_lm.h"
#include "model/layers/token_batch.h"
#include "sweep/sweep.h"
#include "tune/method/method.h"
#include "tune/part/trainable_part.h"

namespace fettle::tune {

struct StepInput {
  model::CausalLm& model;  // its patch is the parts'
  const Parts& parts;      // prepared
  const std::vector<model::TokenBatch>& batches;
  const sweep::SweepOptions& sweep_options;
  std::int64_t step = 0;
  double clip_norm = 0.0;  // 0: any
  // The teacher's rows for the step's tokens, in order; null: no teacher.
  const sweep::TeacherRows* teacher = nullptr;
  double kd_weight = 1.0;  // of the teacher's loss; the data's has the rest
  // Watches the forward pass beside the parts; null: nobody.
  sweep::Observer* watcher = nullptr;
};

struct StepResult {
  double loss = 0.0;       // mean over scored tokens
  double nll = 0.0;        // likewise; the loss where there is no teacher
  double kl = 0.0;         // likewise; 0 without a teacher
  double grad_norm = 0.0;  // before clipping
  std::int64_t loss_tokens = 0;
  double forward_seconds = 0.0;
  double backward_seconds = 0.0;
  double update_seconds = 0.0;
  double wait_seconds = 0.0;  // of forward and backward: for weights
  // Seconds of threads beside the sweeps: loading layers, and states on disk.
  double weight_io_seconds = 0.0;
  double state_io_seconds = 0.0;
  // When the loss or gradient is not finite: what and in which layer. Nothing
  // was updated then.
  std::string failure;
};

// Some token of the step must be scored. Where the sweep options divide data
// among ranks, `batches` are this rank's, and the result is of all.
StepResult run_step(const StepInput& input);

// Whether a forward sweep over `batches` gives a finite loss.
bool has_finite_loss(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const sweep::SweepOptions& sweep_options);

// Shows a forward sweep over `batches` to `observer`.
void probe_forward(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const sweep::SweepOptions& sweep_options,
    sweep::Observer& observer);

// Shows the backward sweep over `batches` of the loss summed over tokens to
// `observer`. Throws UserError when the loss is not finite.
void probe_gradient(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const sweep::SweepOptions& sweep_options,
    sweep::Observer& observer);

}  // namespace fettle::tune
