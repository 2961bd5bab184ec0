// SPDX-License-Identifier: Apache-2.0
// A run of training from its first or resumed step to its end or stop.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "artifact/run_state.h"
#include "core/json.h"
#include "io/atomic_directory.h"
#include "tune/best_evaluation.h"
#include "tune/choice_counts.h"
#include "tune/metrics.h"
#include "tune/running_mean.h"
#include "tune/step.h"
#include "tune/teacher.h"
#include "tune/tune.h"

namespace fettle::tune {

class Trainer {
 public:
  // Opens the output folder and, to resume, the state in it.
  Trainer(
      const TuneInput& input, const TuneOptions& options, Reporter& reporter);
  ~Trainer();
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  TuneResult run();

 private:
  // Seconds of the last step beyond the sweeps.
  struct Times {
    double prepare = 0.0;
    double eval = 0.0;
    double save = 0.0;
  };

  std::int64_t restore();
  // Reports the sizes of a step where they are not those asked for.
  void tell_sizes() const;
  // Has the teacher's files made for all steps from `first` on.
  void ask_teacher(std::int64_t first);
  // The steps from `first` on that have no file.
  std::vector<std::int64_t> steps_to_ask(std::int64_t first) const;
  void check_vocabulary(const Teacher& teacher) const;
  // The file of a step of these sequences.
  void ask(
      const Teacher& teacher,
      std::int64_t step,
      const std::vector<model::Sequence>& sequences) const;
  // All rows of a step of so many tokens, from its file.
  sweep::TeacherRows teacher_rows(std::int64_t step, std::int64_t tokens) const;
  // The work before the first step to do. Throws Stopped when asked to stop.
  void begin(std::int64_t first);
  void prepare(std::int64_t step);
  // How a probe passes over some micro-batches.
  using ProbeSweep = decltype(probe_forward);
  Probe probe(const char* label, ProbeSweep& sweep);
  sweep::SweepOptions undivided() const;
  // Sequences with something to train on; those without are left out.
  std::vector<model::Sequence> draw(std::int64_t sequences);
  // Throws UserError when there is nothing at all to train on.
  void check_data();
  std::vector<sweep::EvalScore> evaluate();
  // Takes an evaluation after `steps` steps, and ends the run where due.
  void judge(std::int64_t steps, const std::vector<sweep::EvalScore>& losses);
  void write_adapter(const std::filesystem::path& folder) const;
  void save(std::int64_t step);
  // Saves like save(), but fails where the current weights give no finite loss:
  // the state before stays.
  void save_if_sound(std::int64_t step);
  void make_step(std::int64_t step);
  StepResult run_step_of(std::int64_t step, ChoiceCounts* choices);
  // Forgets a step without a finite loss or gradient.
  void skip(std::int64_t step, const StepResult& result);
  // Ends the run where too many were skipped in a row.
  [[noreturn]] void give_up(std::int64_t steps, const std::string& why);
  std::vector<model::TokenBatch> good_batch() const;
  // Whether the weights as they are give a finite loss where they did before.
  bool sound();
  // After `steps` steps; `why` is known of the last.
  [[noreturn]] void fail_diverged(std::int64_t steps, const std::string& why);
  bool stop_requested() const;
  // Whether held-out loss is due after a step.
  bool evaluates(std::int64_t step) const;
  void record(
      std::int64_t step, const StepResult& result, const ChoiceCounts* choices);
  // What the progress line shows after a step.
  std::string step_text(std::int64_t step) const;
  // Over all processes that worked on the run.
  void count_skipped();
  void report() const;
  // The part of the result that a state keeps, and the way to restore it.
  Json found_until_now() const;
  // Has every rank hold rank 0's newest state, with its files.
  std::optional<artifact::RunState> shared_state() const;
  void restore_found(const JsonObject& found);
  void leave_out();
  void finish();

  const TuneInput& input_;
  const TuneOptions& options_;
  Reporter& reporter_;
  // Only the leading rank writes results. The others have a folder of their own
  // for what they need, which goes with them.
  ranks::Team team_;
  io::AtomicDirectory directory_;
  Parts parts_;
  Json identity_;
  std::int64_t micro_batch_tokens_;
  std::int64_t sequences_per_step_;
  TeacherFiles teacher_files_;
  BestEvaluation best_;
  std::optional<MetricsFile> metrics_;
  Times times_;
  TuneResult result_;
  RunningMean shown_loss_;
  double grad_norm_ = 0.0;      // of the last step that was not skipped
  std::int64_t left_out_ = 0;   // sequences that the last draws left out
  std::int64_t bad_steps_ = 0;  // skipped in a row
  std::optional<model::Sequence> good_sequence_;  // of the last finite step
  std::optional<std::int64_t> saved_step_;        // of the state on disk
};

}  // namespace fettle::tune
