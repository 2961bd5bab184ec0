// SPDX-License-Identifier: Apache-2.0
// What a step is made from: its tokens, the teacher's files, and the probes of
// parts that choose.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "core/stopwatch.h"
#include "sweep/micro_batches.h"
#include "tune/trainer.h"

namespace fettle::tune {

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

Probe Trainer::probe(const char* label, ProbeSweep& sweep) {
  return [this, label, &sweep](
             sweep::Observer& observer, const ProbeRequest& request) {
    const Json cursor = input_.train.state();
    Progress progress(
        &reporter_,
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
  const Stopwatch watch;
  const Probe forward = probe("look", probe_forward);
  const Probe gradient = probe("choose", probe_gradient);
  for (const auto& part : parts_) {
    part->prepare({step, forward, gradient, reporter_});
  }
  times_.prepare = watch.seconds();
}

}  // namespace fettle::tune
