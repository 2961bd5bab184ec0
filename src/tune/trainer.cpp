// SPDX-License-Identifier: Apache-2.0
#include "tune/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "sweep/micro_batches.h"
#include "tune/adapter.h"
#include "tune/method.h"

namespace fettle::tune {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// What a resumed run must share with the run that saved the state.
Json identity_of(const TuneInput& input, const TuneOptions& options) {
  Json data = input.train.state();
  data.erase("current");
  for (Json& source : data["sources"]) source.erase("drawn");
  Json same = to_json(options);
  same.erase("save_every");  // has no part in the numbers
  return {
      {"model", model_fingerprint(input.model.reader())},
      {"teacher", input.teacher_fingerprint},
      {"data", std::move(data)},
      {"options", std::move(same)}};
}

}  // namespace

Trainer::Trainer(
    const TuneInput& input, const TuneOptions& options, Reporter& reporter)
    : input_(input),
      options_(options),
      reporter_(reporter),
      directory_(input.out, {.resume = options.resume}),
      parts_(make_parts(
          {options,
           input.model.reader(),
           input.model.options().device,
           directory_.path()})),
      identity_(identity_of(input, options)),
      micro_batch_tokens_(input.micro_batch_tokens),
      sequences_per_step_(options.tokens_per_step / options.seq_len),
      teacher_files_(
          directory_.path(),
          sequences_per_step_ * options.seq_len,
          std::min(options.kd_top, input.model.config().vocab_size)) {
  input_.model.set_patch(
      [this](std::int64_t layer, model::LayerWeights& weights) {
        for (const auto& part : parts_) part->patch(layer, weights);
      });
}

Trainer::~Trainer() { input_.model.set_patch({}); }

// Steps already done.
std::int64_t Trainer::restore() {
  if (!options_.resume) return 0;
  const auto state = artifact::load_newest_state(directory_.path(), "tune");
  if (!state) {
    reporter_.note("no saved state found; starting from the first step");
    return 0;
  }
  artifact::check_same_run(state->identity, identity_, "tune");
  for (const auto& part : parts_) part->load_state(state->tensors);
  input_.train.restore(state->cursor);
  micro_batch_tokens_ =
      artifact::resumed_micro_batch(*state, micro_batch_tokens_, &reporter_);
  reporter_.note(fmt::format("resuming after step {}", state->step));
  return state->step;
}

void Trainer::ask_teacher(std::int64_t first) {
  if (!input_.open_teacher) return;
  teacher_files_.claim(identity_);
  std::int64_t missing = 0;
  for (std::int64_t step = first; step < options_.steps; ++step) {
    if (!teacher_files_.has(step)) ++missing;
  }
  if (missing == 0) return;
  directory_.require_space(
      static_cast<std::uint64_t>(missing * teacher_files_.bytes_per_step()));
  const Teacher teacher = input_.open_teacher();
  const std::int64_t vocab = input_.model.config().vocab_size;
  if (teacher.model->config().vocab_size != vocab) {
    throw UserError(
        "tune",
        "teacher",
        fmt::format(
            "expected a model of the same {} tokens, found {}; take the model "
            "that this one was made from",
            vocab,
            teacher.model->config().vocab_size));
  }
  const Json cursor = input_.train.state();
  const std::int64_t tokens = sequences_per_step_ * options_.seq_len;
  Progress progress(
      reporter_,
      "teacher",
      static_cast<std::uint64_t>(missing * tokens),
      "tokens");
  for (std::int64_t step = first; step < options_.steps; ++step) {
    const auto batches = sweep::micro_batches(
        draw(sequences_per_step_), teacher.micro_batch_tokens, vocab);
    if (teacher_files_.has(step)) continue;
    sweep::Sweep sweep(*teacher.model, batches, teacher.sweep);
    sweep.forward({}, {});
    teacher_files_.write(
        step, sweep.teacher_rows(std::min(options_.kd_top, vocab)));
    progress.advance(static_cast<std::uint64_t>(tokens));
  }
  input_.train.restore(cursor);
}

std::vector<model::Sequence> Trainer::draw(std::int64_t sequences) {
  std::vector<model::Sequence> drawn;
  for (std::int64_t i = 0; i < sequences; ++i) {
    text::PackedSequence next = input_.train.next();
    drawn.push_back(
        {std::move(next.ids),
         std::move(next.labels),
         std::move(next.document_starts)});
  }
  return drawn;
}

Probe Trainer::probe(const char* label, ProbeSweep& sweep) {
  return [this, label, &sweep](
             sweep::Observer& observer, const ProbeRequest& request) {
    const Json cursor = input_.train.state();
    Progress progress(
        reporter_,
        label,
        static_cast<std::uint64_t>(request.sequences),
        "sequences");
    sweep::SweepOptions sweep_options = input_.sweep;
    // Graphs are planned for a step's tokens.
    sweep_options.keep_graphs = sweep_options.keep_graphs && !request.at_once;
    const std::int64_t chunk =
        request.at_once ? request.sequences : sequences_per_step_;
    for (std::int64_t left = request.sequences; left > 0;) {
      const std::int64_t count = std::min(left, chunk);
      sweep(
          input_.model,
          sweep::micro_batches(
              draw(count),
              request.by_sequence ? options_.seq_len : micro_batch_tokens_,
              input_.model.config().vocab_size),
          sweep_options,
          observer);
      progress.advance(static_cast<std::uint64_t>(count));
      left -= count;
    }
    input_.train.restore(cursor);
  };
}

void Trainer::prepare(std::int64_t step) {
  const auto start = Clock::now();
  const Probe forward = probe("look", probe_forward);
  const Probe gradient = probe("choose", probe_gradient);
  for (const auto& part : parts_) {
    part->prepare({step, forward, gradient, reporter_});
  }
  times_.prepare = seconds_since(start);
}

std::vector<sweep::EvalScore> Trainer::evaluate() {
  const auto start = Clock::now();
  auto scores = sweep::evaluate(
                    input_.model,
                    nullptr,
                    input_.held_out,
                    {.micro_batch_tokens = micro_batch_tokens_,
                     .chunk_tokens = options_.tokens_per_step,
                     .sweep = input_.sweep},
                    reporter_)
                    .sets;
  for (const sweep::EvalScore& score : scores) {
    reporter_.note(fmt::format(
        "{}: {:.4f} nats over {} tokens", score.name, score.nll, score.tokens));
  }
  times_.eval = seconds_since(start);
  return scores;
}

void Trainer::save(std::int64_t step) {
  const auto start = Clock::now();
  artifact::RunState state{
      step, identity_, input_.train.state(), micro_batch_tokens_, {}};
  for (const auto& part : parts_) part->save_state(state.tensors);
  artifact::save_state(directory_.path(), state);
  times_.save = seconds_since(start);
}

void Trainer::fail(std::int64_t step, const std::string& why) {
  throw UserError(
      "tune",
      fmt::format("step {}", step + 1),
      fmt::format(
          "{}; the last saved state is in {}; try a lower lr or a longer "
          "warmup_steps",
          why,
          directory_.path().string()));
}

void Trainer::make_step(std::int64_t step) {
  times_ = {};
  const auto start = Clock::now();
  const Json cursor = input_.train.state();
  try {
    prepare(step);
  } catch (const UserError&) {
    input_.train.restore(cursor);
    save(step);
    throw;
  }
  const auto batches = sweep::micro_batches(
      draw(sequences_per_step_),
      micro_batch_tokens_,
      input_.model.config().vocab_size);
  std::optional<sweep::TeacherRows> rows;
  if (input_.open_teacher) rows = teacher_files_.read(step);
  const StepResult result = run_step(
      {.model = input_.model,
       .parts = parts_,
       .batches = batches,
       .sweep_options = input_.sweep,
       .step = step,
       .clip_norm = options_.clip_norm,
       .teacher = rows ? &*rows : nullptr,
       .kd_weight = options_.kd_weight});
  if (!result.failure.empty()) {
    input_.train.restore(cursor);
    const bool half_done = std::ranges::any_of(
        parts_, [](const auto& part) { return part->updates_in_sweep(); });
    if (!half_done) save(step);
    fail(step, result.failure);
  }
  result_.steps = step + 1;
  result_.loss = result.loss;
  result_.tokens += sequences_per_step_ * options_.seq_len;
  result_.seconds += seconds_since(start);
  record(step, result);
}

void Trainer::record(std::int64_t step, const StepResult& result) {
  const bool last = step + 1 == options_.steps;
  const bool eval_due = last || (options_.eval_every > 0 &&
                                 (step + 1) % options_.eval_every == 0);
  std::vector<sweep::EvalScore> losses;
  if (eval_due && !input_.held_out.empty()) losses = evaluate();
  if (last) result_.held_out_after = losses;
  const auto tokens = sequences_per_step_ * options_.seq_len;
  const double sweeps =
      result.forward_seconds + result.backward_seconds + result.update_seconds;
  Json rates = Json::object();
  for (const auto& part : parts_) {
    rates[std::string(part->name())] = part->learning_rate(step);
  }
  Json line{
      {"step", step + 1},
      {"loss", result.loss},
      {"lr", std::move(rates)},
      {"grad_norm", result.grad_norm},
      {"tokens", tokens},
      {"loss_tokens", result.loss_tokens},
      {"tokens_per_second", static_cast<double>(tokens) / sweeps},
      {"seconds",
       {{"prepare", times_.prepare},
        {"forward", result.forward_seconds},
        {"backward", result.backward_seconds},
        {"update", result.update_seconds},
        {"eval", times_.eval}}}};
  if (input_.open_teacher) {
    line["nll"] = result.nll;
    line["kl"] = result.kl;
  }
  if (!losses.empty()) line["eval"] = tune::to_json(losses);
  metrics_->append(line);
}

bool Trainer::stop_requested() const {
  return input_.stop_requested != nullptr && input_.stop_requested->load();
}

TuneResult Trainer::run() {
  const std::int64_t first = restore();
  result_.steps = first;
  metrics_.emplace(directory_.path() / "metrics.jsonl", first > 0 ? first : -1);
  if (first == 0 && !input_.held_out.empty()) {
    result_.held_out_before = evaluate();
    metrics_->append(
        {{"step", 0},
         {"eval", tune::to_json(result_.held_out_before)},
         {"seconds", {{"eval", times_.eval}}}});
  }
  ask_teacher(first);
  Progress progress(
      reporter_,
      "tune",
      static_cast<std::uint64_t>(
          (options_.steps - first) * sequences_per_step_ * options_.seq_len),
      "tokens");
  for (std::int64_t step = first; step < options_.steps; ++step) {
    if (stop_requested()) {
      save(step);
      result_.stopped = true;
      return result_;
    }
    make_step(step);
    progress.advance(
        static_cast<std::uint64_t>(sequences_per_step_ * options_.seq_len));
    const bool due =
        options_.save_every > 0 && (step + 1) % options_.save_every == 0;
    if (due || step + 1 == options_.steps) save(step + 1);
  }
  finish();
  return result_;
}

void Trainer::finish() {
  result_.trainable_weights = 0;
  for (const auto& part : parts_) {
    result_.trainable_weights += part->trainable_weights();
  }
  save_adapter(
      directory_.path(),
      parts_,
      {options_.method,
       identity_["model"].get<std::string>(),
       tune::to_json(options_),
       result_.to_json()});
  metrics_.reset();
  artifact::remove_states(directory_.path());
  teacher_files_.remove();
  directory_.commit();
}

}  // namespace fettle::tune
