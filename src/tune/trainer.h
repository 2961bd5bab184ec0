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
#include "tune/metrics.h"
#include "tune/sparse/choice_counts.h"
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
  // Has the teacher's files made for all steps from `first` on.
  void ask_teacher(std::int64_t first);
  // What comes before the first step to do. Throws Stopped when asked to stop.
  void begin(std::int64_t first);
  void prepare(std::int64_t step);
  // How a probe passes over some micro-batches.
  using ProbeSweep = decltype(probe_forward);
  Probe probe(const char* label, ProbeSweep& sweep);
  std::vector<model::Sequence> draw(std::int64_t sequences);
  std::vector<sweep::EvalScore> evaluate();
  // Takes an evaluation after `steps` steps, and ends the run where due.
  void judge(std::int64_t steps, const std::vector<sweep::EvalScore>& losses);
  void write_adapter(const std::filesystem::path& folder) const;
  void save(std::int64_t step);
  void make_step(std::int64_t step);
  [[noreturn]] void fail(std::int64_t step, const std::string& why);
  bool stop_requested() const;
  // Whether held-out loss is due after a step.
  bool evaluates(std::int64_t step) const;
  void record(
      std::int64_t step, const StepResult& result, const ChoiceCounts* choices);
  void report() const;
  // What a state keeps of the result, and takes it back.
  Json found_until_now() const;
  void restore_found(const JsonObject& found);
  void leave_out();
  void finish();

  const TuneInput& input_;
  const TuneOptions& options_;
  Reporter& reporter_;
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
};

}  // namespace fettle::tune
