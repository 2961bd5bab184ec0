// SPDX-License-Identifier: Apache-2.0
// What a step is made from: its tokens, the teacher's files, and the probes of
// parts that choose.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/stopwatch.h"
#include "sweep/micro_batches.h"
#include "tune/epochs.h"
#include "tune/resume.h"
#include "tune/trainer.h"

namespace fettle::tune {

std::vector<model::Sequence> Trainer::draw(std::int64_t sequences) {
  std::vector<model::Sequence> drawn;
  std::size_t in_row = 0;
  while (std::ssize(drawn) < sequences) {
    text::PackedSequence next = input_.train.next();
    if (!has_target(next)) {
      ++left_out_;
      if (++in_row <= input_.train.sequences_at_most()) continue;
      throw UserError(
          "tune",
          "data",
          fmt::format(
              "expected tokens to train on, found every label masked in "
              "sequences of {} tokens; give a longer --seq-len, or other data",
              options_.seq_len));
    }
    in_row = 0;
    drawn.push_back(
        {std::move(next.ids),
         std::move(next.labels),
         std::move(next.document_starts)});
  }
  return drawn;
}

void Trainer::tell_sizes() const {
  const std::int64_t warmup = warmup_steps(options_.warmup, options_.steps);
  if (warmup > options_.steps) {
    reporter_.note(fmt::format(
        "the warm-up of {} steps is longer than the run of {}: the peak "
        "learning rate is not reached",
        warmup,
        options_.steps));
  }
  const std::int64_t tokens = sequences_per_step_ * options_.seq_len;
  if (tokens == options_.tokens_per_step) return;
  reporter_.note(fmt::format(
      "a step trains on {} tokens, {} whole sequences of {}: {} is not a "
      "multiple of seq_len",
      tokens,
      sequences_per_step_,
      options_.seq_len,
      options_.tokens_per_step));
}

void Trainer::check_data() {
  const Json cursor = input_.train.state();
  draw(1);
  input_.train.restore(cursor);
}

void Trainer::ask_teacher(std::int64_t first) {
  if (!input_.open_teacher) return;
  teacher_files_.claim(fixed_identity(identity_));
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
      &reporter_,
      "teacher",
      static_cast<std::uint64_t>(missing * tokens),
      "tokens");
  for (std::int64_t step = first; step < options_.steps; ++step) {
    if (stop_requested()) {
      input_.train.restore(cursor);
      throw sweep::Stopped();
    }
    const auto batches = sweep::micro_batches(
        draw(sequences_per_step_), teacher.micro_batch_tokens, vocab);
    if (teacher_files_.has(step)) continue;
    sweep::Sweep sweep(*teacher.model, batches, teacher.sweep);
    sweep.forward({}, {});
    teacher_files_.write(step, sweep.teacher_rows(teacher_files_.top()));
    progress.advance(static_cast<std::uint64_t>(tokens));
  }
  input_.train.restore(cursor);
}

// For what every rank does by itself, and finds the same.
sweep::SweepOptions Trainer::undivided() const {
  sweep::SweepOptions options = input_.sweep;
  options.team = {};
  return options;
}

Probe Trainer::probe(const char* label, ProbeSweep& sweep) {
  return [this, label, &sweep](
             sweep::Observer& observer, const ProbeRequest& request) {
    const Json cursor = input_.train.state();
    Progress progress(
        &reporter_,
        label,
        static_cast<std::uint64_t>(request.sequences),
        "sequences");
    sweep::SweepOptions sweep_options = undivided();
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
  const Stopwatch watch;
  const Probe forward = probe("look", probe_forward);
  const Probe gradient = probe("choose", probe_gradient);
  for (const auto& part : parts_) {
    part->prepare({step, forward, gradient, reporter_});
  }
  times_.prepare = watch.seconds();
}

}  // namespace fettle::tune
