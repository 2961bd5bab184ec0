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
    sweep::SweepOptions sweep_options = input_.sweep;
    // Graphs are planned for a step's tokens.
    sweep_options.keep_graphs = sweep_options.keep_graphs && !request.at_once;
    const std::int64_t chunk =
        request.at_once ? request.sequences : sequences_per_step_;
    for (std::int64_t left = request.sequences; left > 0;) {
      const std::int64_t count = std::min(left, chunk);
      const auto own = sweep::own_micro_batches(
          draw(count),
          request.by_sequence ? options_.seq_len : micro_batch_tokens_,
          input_.model.config().vocab_size,
          team_);
      sweep_options.shard_ends = own.shard_ends;
      sweep_options.first_token = own.first_token;
      sweep(input_.model, own.batches, sweep_options, observer);
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
