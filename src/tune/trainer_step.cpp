// SPDX-License-Identifier: Apache-2.0
// One step of a run, and what is done where a step has no finite loss or
// gradient: it is skipped. A state is only saved while the weights give a
// finite loss, so that the one on disk is always one to go on from.
#include <fmt/format.h>

#include "core/error.h"
#include "core/stopwatch.h"
#include "sweep/data.h"
#include "sweep/micro_batches.h"
#include "tune/finite_probe.h"
#include "tune/method/method_router.h"
#include "tune/trainer.h"

namespace fettle::tune {

StepResult Trainer::run_step_of(std::int64_t step, ChoiceCounts* choices) {
  left_out_ = 0;
  const auto sequences = draw(sequences_per_step_);
  const auto own = sweep::own_micro_batches(
      sequences, micro_batch_tokens_, input_.model.config().vocab_size, team_);
  std::optional<sweep::TeacherRows> rows;
  if (input_.open_teacher) {
    rows = teacher_rows(step, sweep::count_tokens(sequences))
               .narrow(own.first_token, own.tokens);
  }
  sweep::SweepOptions sweep_options = input_.sweep;
  sweep_options.router = router_training(options_, step);
  sweep_options.shard_ends = own.shard_ends;
  sweep_options.first_token = own.first_token;
  StepResult result = run_step(
      {.model = input_.model,
       .parts = parts_,
       .batches = own.batches,
       .sweep_options = sweep_options,
       .step = step,
       .clip_norm = options_.clip_norm,
       .teacher = rows ? &*rows : nullptr,
       .kd_weight = options_.kd_weight,
       .watcher = choices});
  if (result.failure.empty()) good_sequence_ = sequences.front();
  return result;
}

void Trainer::make_step(std::int64_t step) {
  times_ = {};
  const Stopwatch watch;
  const Json cursor = input_.train.state();
  try {
    prepare(step);
  } catch (const UserError& error) {
    // Where it is of one rank, others don't come to save.
    if (step == 0 || team_.ranks() > 1) throw;
    if (!sound()) fail_diverged(step, error.what());
    input_.train.restore(cursor);
    save(step);
    throw;
  }
  std::optional<ChoiceCounts> choices;
  if (evaluates(step)) choices.emplace(input_.model.config().num_layers());
  const StepResult result = run_step_of(step, choices ? &*choices : nullptr);
  const bool bad = !result.failure.empty();
  result_.steps = step + 1;
  if (!bad) result_.loss = result.loss;
  result_.tokens += sequences_per_step_ * options_.seq_len;
  result_.seconds += watch.seconds();
  if (bad) {
    skip(step, result);
  } else {
    bad_steps_ = 0;
    shown_loss_.add(result.loss);
    grad_norm_ = result.grad_norm;
  }
  record(step, result, choices ? &*choices : nullptr);
  if (bad_steps_ >= options_.max_bad_steps) give_up(step + 1, result.failure);
}

void Trainer::skip(std::int64_t step, const StepResult& result) {
  for (const auto& part : parts_) part->forget_step();
  ++bad_steps_;
  reporter_.note(
      fmt::format("step {} is skipped: {}", step + 1, result.failure));
}

void Trainer::give_up(std::int64_t steps, const std::string& why) {
  if (!sound()) fail_diverged(steps, why);
  save(steps);
  throw UserError(
      "tune",
      fmt::format("step {}", steps),
      fmt::format(
          "{} steps in a row were skipped, the last because {}, though the "
          "weights are sound: look at the data; --resume goes on behind these "
          "steps, and a larger --max-bad-steps skips more",
          bad_steps_,
          why));
}

std::vector<model::TokenBatch> Trainer::good_batch() const {
  return sweep::micro_batches(
      {&*good_sequence_, 1},
      options_.seq_len,
      input_.model.config().vocab_size);
}

bool Trainer::sound() {
  // A run that was resumed and has made no step since.
  if (!good_sequence_) return bad_steps_ == 0;
  return has_finite_loss(input_.model, good_batch(), undivided());
}

void Trainer::save_if_sound(std::int64_t step) {
  // No step has had a finite loss yet: the next one may, so save nothing now.
  const bool unknown = !good_sequence_ && bad_steps_ > 0;
  if (unknown && step < options_.steps) return;
  if (!sound()) {
    fail_diverged(
        step,
        unknown
            ? "the loss is not finite"
            : "the loss is not finite any more, first " +
                  locate_non_finite(input_.model, good_batch(), undivided()));
  }
  save(step);
}

void Trainer::fail_diverged(std::int64_t steps, const std::string& why) {
  std::string advice;
  if (saved_step_) {
    advice = fmt::format(
        "training has diverged; the state of step {} is saved: go on from "
        "there with --resume and a lower --lr",
        *saved_step_);
  } else if (good_sequence_) {
    advice =
        "training has diverged before a state was saved; begin again with a "
        "lower --lr or a longer --warmup";
  } else {
    advice = "no step has had a finite loss; evaluate the model first";
  }
  throw UserError(
      "tune",
      fmt::format("step {}", steps),
      fmt::format("{}; {}", why, advice));
}

}  // namespace fettle::tune
