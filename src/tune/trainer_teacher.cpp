// SPDX-License-Identifier: Apache-2.0
// What a teacher says of the tokens of every step. Each rank asks it of its own
// shards; rank 0 has the files, and shows the others their rows.
#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"
#include "ranks/group.h"
#include "sweep/micro_batches.h"
#include "sweep/sweep.h"
#include "tune/resume.h"
#include "tune/trainer.h"

namespace fettle::tune {

std::vector<std::int64_t> Trainer::steps_to_ask(std::int64_t first) const {
  const at::Tensor missing = at::zeros({options_.steps - first}, at::kByte);
  if (team_.leads()) {
    teacher_files_.claim(fixed_identity(identity_));
    auto* const flags = missing.mutable_data_ptr<std::uint8_t>();
    for (std::int64_t step = first; step < options_.steps; ++step) {
      flags[step - first] = teacher_files_.has(step) ? 0 : 1;
    }
  }
  if (team_.divides() && missing.numel() > 0) {
    team_.group->broadcast(missing, 0);
  }
  std::vector<std::int64_t> steps;
  const auto* const flags = missing.const_data_ptr<std::uint8_t>();
  for (std::int64_t step = first; step < options_.steps; ++step) {
    if (flags[step - first] != 0) steps.push_back(step);
  }
  return steps;
}

void Trainer::check_vocabulary(const Teacher& teacher) const {
  const std::int64_t own = input_.model.config().vocab_size;
  const std::int64_t others = teacher.model->config().vocab_size;
  if (others == own) return;
  throw UserError(
      "tune",
      "teacher",
      fmt::format(
          "expected a model of the same {} tokens, found {}; take the model "
          "that this one was made from",
          own,
          others));
}

void Trainer::ask_teacher(std::int64_t first) {
  if (!input_.open_teacher) return;
  const auto missing = steps_to_ask(first);
  if (missing.empty()) return;
  if (team_.leads()) {
    directory_.require_space(static_cast<std::uint64_t>(
        std::ssize(missing) * teacher_files_.bytes_per_step()));
  }
  const Teacher teacher = input_.open_teacher();
  check_vocabulary(teacher);
  const Json cursor = input_.train.state();
  const std::int64_t tokens = sequences_per_step_ * options_.seq_len;
  Progress progress(
      &reporter_,
      "teacher",
      static_cast<std::uint64_t>(std::ssize(missing) * tokens),
      "tokens");
  for (std::int64_t step = first; step < options_.steps; ++step) {
    if (stop_requested()) {
      input_.train.restore(cursor);
      throw sweep::Stopped();
    }
    const auto sequences = draw(sequences_per_step_);
    if (!std::ranges::binary_search(missing, step)) continue;
    ask(teacher, step, sequences);
    progress.advance(static_cast<std::uint64_t>(tokens));
  }
  input_.train.restore(cursor);
}

void Trainer::ask(
    const Teacher& teacher,
    std::int64_t step,
    const std::vector<model::Sequence>& sequences) const {
  const auto own = sweep::own_micro_batches(
      sequences,
      teacher.micro_batch_tokens,
      teacher.model->config().vocab_size,
      team_);
  sweep::SweepOptions options = teacher.sweep;
  options.team = {};
  sweep::Sweep sweep(*teacher.model, own.batches, options);
  sweep.forward({}, {});
  sweep::TeacherRows rows = sweep.teacher_rows(teacher_files_.top());
  if (team_.divides()) {
    ranks::Group& group = *team_.group;
    rows.ids = ranks::rows_at_rank_0(group, rows.ids.contiguous());
    rows.log_probs = ranks::rows_at_rank_0(group, rows.log_probs.contiguous());
    rows.rest = ranks::rows_at_rank_0(group, rows.rest.contiguous());
  }
  if (team_.leads()) teacher_files_.write(step, rows);
}

sweep::TeacherRows Trainer::teacher_rows(
    std::int64_t step, std::int64_t tokens) const {
  if (!team_.divides()) return teacher_files_.read(step);
  const std::int64_t top = teacher_files_.top();
  sweep::TeacherRows rows{
      at::empty({tokens, top}, at::kLong),
      at::empty({tokens, top}),
      at::empty({tokens})};
  if (team_.leads()) rows = teacher_files_.read(step);
  FETTLE_ASSERT(rows.ids.size(0) == tokens);
  for (const at::Tensor& tensor : {rows.ids, rows.log_probs, rows.rest}) {
    team_.group->broadcast(tensor, 0);
  }
  return rows;
}

}  // namespace fettle::tune
