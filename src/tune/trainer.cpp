// SPDX-License-Identifier: Apache-2.0
#include "tune/trainer.h"

#include <fmt/format.h>

#include <algorithm>

#include "artifact/model_card.h"
#include "artifact/shared_state.h"
#include "core/error.h"
#include "core/stopwatch.h"
#include "io/file.h"
#include "ranks/group.h"
#include "tune/adapter/adapter.h"
#include "tune/method/method.h"
#include "tune/options/default_rates.h"
#include "tune/resume.h"

namespace fettle::tune {

namespace {

BestOptions best_options(const TuneInput& input, const TuneOptions& options) {
  return {
      options.patience, !input.held_out.empty() && options.keep_best != "no"};
}

// Of ranks that write nothing.
BestOptions without_folder(const ranks::Team& team, BestOptions options) {
  options.keep = options.keep && team.leads();
  return options;
}

// Otherwise held-out data is only looked at.
bool decides(const BestOptions& best) { return best.keep || best.patience > 0; }

}  // namespace

Trainer::Trainer(
    const TuneInput& input, const TuneOptions& options, Reporter& reporter)
    : input_(input),
      options_(options),
      reporter_(reporter),
      team_(input.sweep.team),
      directory_(
          input.out,
          team_.leads()
              ? artifact::resumable_output(options.resume, options.restart)
              : artifact::plain_output()),
      parts_(make_parts(
          {options,
           input.model.reader(),
           input.model.options().device,
           directory_.path(),
           StateOwners(team_)})),
      identity_(
          run_identity(input, options, decides(best_options(input, options)))),
      micro_batch_tokens_(input.micro_batch_tokens),
      sequences_per_step_(options.tokens_per_step / options.seq_len),
      teacher_files_(
          directory_.path(),
          sequences_per_step_ * options.seq_len,
          std::min(options.kd_top, input.model.config().vocab_size)),
      best_(
          directory_.path(),
          without_folder(team_, best_options(input, options))) {
  input_.model.set_patch(
      [this](std::int64_t layer, model::LayerWeights& weights) {
        for (const auto& part : parts_) part->patch(layer, weights);
      });
}

// What only an unfinished run needs.
void Trainer::leave_out() {
  directory_.leave_out(std::string(artifact::kStatePrefix));
  directory_.leave_out(std::string(kBestPrefix));
  directory_.leave_out(std::string(kTeacherFolder));
  for (const auto& part : parts_) {
    for (std::string& file : part->work_files()) {
      directory_.leave_out(std::move(file));
    }
  }
}

Trainer::~Trainer() { input_.model.set_patch({}); }

std::optional<artifact::RunState> Trainer::shared_state() const {
  if (team_.ranks() == 1) {
    return artifact::load_newest_state(directory_.path(), "tune");
  }
  const StateOwners owners(team_);
  auto state = artifact::load_shared_state(
      *team_.group, directory_.path(), "tune", [&](const std::string& name) {
        return owners.keeps(name);
      });
  if (!state) return state;
  for (const auto& part : parts_) {
    for (const std::string& file : part->state_files(state->tensors)) {
      artifact::share_file(*team_.group, directory_.path() / file);
    }
  }
  return state;
}

// Steps already done.
std::int64_t Trainer::restore() {
  if (!options_.resume) return 0;
  const auto state = shared_state();
  if (!state) {
    reporter_.note("no saved state found; starting from the first step");
    return 0;
  }
  check_resumed_run(state->identity, identity_, state->step, reporter_);
  for (const auto& part : parts_) {
    part->load_state(state->tensors);
    part->patch_globals(input_.model.globals());
  }
  best_.load_state(state->tensors, input_.held_out);
  restore_found(JsonObject(state->found, "tune", "what the state found"));
  input_.train.restore(state->cursor);
  micro_batch_tokens_ =
      artifact::resumed_micro_batch(*state, micro_batch_tokens_, &reporter_);
  saved_step_ = state->step;
  reporter_.note(fmt::format("resuming after step {}", state->step));
  return state->step;
}

void Trainer::save(std::int64_t step) {
  saved_step_ = step;
  const Stopwatch watch;
  artifact::RunState state{
      .step = step,
      .identity = identity_,
      .cursor = input_.train.state(),
      .micro_batch_tokens = micro_batch_tokens_,
      .tensors = {},
      .found = found_until_now()};
  for (const auto& part : parts_) {
    if (team_.leads() || part->divides_state()) part->save_state(state.tensors);
  }
  if (team_.leads()) best_.save_state(state.tensors);
  if (team_.ranks() > 1) {
    artifact::save_shared_state(*team_.group, directory_.path(), state);
  } else {
    artifact::save_state(directory_.path(), state);
  }
  if (team_.leads()) best_.state_saved();
  times_.save = watch.seconds();
}

// Ranks stop at the same step, when one of them is asked to.
bool Trainer::stop_requested() const {
  const bool own =
      input_.stop_requested != nullptr && input_.stop_requested->load();
  if (!team_.divides()) return own;
  return ranks::sum(*team_.group, own ? 1 : 0) > 0;
}

void Trainer::begin(std::int64_t first) {
  result_.peak_rates = peak_rates(options_);
  result_.own_rates = options_.lr == 0.0 && options_.router_lr == 0.0;
  tell_sizes();
  check_data();
  if (first == 0 && !input_.held_out.empty()) {
    result_.held_out_before = evaluate();
    metrics_->append(
        {{"step", 0},
         {"eval", tune::to_json(result_.held_out_before)},
         {"seconds", {{"eval", times_.eval}}}});
  }
  ask_teacher(first);
}

TuneResult Trainer::run() {
  const std::int64_t first = restore();
  result_.steps = first;
  metrics_.emplace(directory_.path() / kMetricsFile, first > 0 ? first : -1);
  try {
    begin(first);
  } catch (const sweep::Stopped&) {
    save(first);
    result_.stopped = true;
    return result_;
  }
  const auto step_tokens =
      static_cast<std::uint64_t>(sequences_per_step_ * options_.seq_len);
  Progress progress(
      &reporter_,
      "tune",
      static_cast<std::uint64_t>(options_.steps) * step_tokens,
      "tokens",
      static_cast<std::uint64_t>(first) * step_tokens);
  // A run that was to end when it was killed is resumed to end.
  for (std::int64_t step = first; step < options_.steps; ++step) {
    if (best_.exhausted()) break;
    if (stop_requested()) {
      save_if_sound(step);
      result_.stopped = true;
      result_.held_out_after.clear();  // of a step before this one
      count_skipped();
      return result_;
    }
    make_step(step);
    progress.tell(step_text(step));
    progress.advance(step_tokens);
    const bool due =
        options_.save_every > 0 && (step + 1) % options_.save_every == 0;
    const bool end = step + 1 == options_.steps || best_.exhausted();
    if (due || end) save_if_sound(step + 1);
  }
  count_skipped();
  finish();
  return result_;
}

void Trainer::write_adapter(const std::filesystem::path& folder) const {
  save_adapter(
      folder,
      parts_,
      {options_.method,
       identity_["model"].get<std::string>(),
       tune::to_json(options_),
       result_.found()});
}

// The saved state stays until the folder is whole.
void Trainer::finish() {
  result_.trainable_weights = 0;
  const std::int64_t layers = input_.model.config().num_layers();
  for (const auto& part : parts_) {
    result_.trainable_weights += part->trainable_weights(layers);
  }
  result_.stopped_early = best_.exhausted() && result_.steps < options_.steps;
  if (best_.keeps() && best_.step() > 0) {
    result_.best_step = best_.step();
    result_.held_out_after = best_.scores();
  }
  metrics_.reset();
  if (!team_.leads()) return;
  if (best_.take_over()) {
    set_measured(directory_.path(), result_.found());
  } else {
    write_adapter(directory_.path());
  }
  io::write_file(
      directory_.path() / "timings.json", result_.timings().dump(2) + "\n");
  artifact::write_adapter_card(
      directory_.path(), input_.model.reader().folder());
  report();
  leave_out();
  directory_.commit();
}

}  // namespace fettle::tune
