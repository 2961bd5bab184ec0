// SPDX-License-Identifier: Apache-2.0
// The best evaluation of a run: its step, its scores, how many came after it,
// and the adapter as it was then. The adapter waits in FOLDER/best-STEP; the
// one that the last saved state names stays until the next is saved, so that a
// killed run finds it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "artifact/tensor_file.h"
#include "core/json.h"
#include "sweep/evaluate.h"

namespace fettle::tune {

// The names of the folders begin with this.
inline constexpr const char* kBestPrefix = "best-";

// Mean over the sets, whatever their sizes, in nats; NaN of none.
double mean_nll(const std::vector<sweep::EvalScore>& scores);

// What identifies held-out data: names, tokens and a checksum of each set.
Json held_out_identity(const std::vector<sweep::EvalSet>& sets);

struct BestOptions {
  std::int64_t patience = 0;  // evaluations without a better one; 0: any
  bool keep = false;          // the adapter of the best one
};

class BestEvaluation {
 public:
  BestEvaluation(std::filesystem::path folder, const BestOptions& options);

  // Writes the adapter into a folder that exists.
  using Write = std::function<void(const std::filesystem::path& folder)>;

  // Takes the evaluation after `step` steps, later than those before. One that
  // is better than all of them, by its mean loss, has its adapter written where
  // that is to be kept.
  void take(
      std::int64_t step,
      const std::vector<sweep::EvalScore>& scores,
      const Write& write);

  bool keeps() const { return options_.keep; }
  // Whether patience has run out.
  bool exhausted() const;
  std::int64_t step() const { return step_; }      // of the best; 0: none yet
  std::int64_t waited() const { return waited_; }  // evaluations since
  const std::vector<sweep::EvalScore>& scores() const { return scores_; }

  void save_state(artifact::TensorMap& into) const;
  // Call it once a state is durable: it removes older adapters.
  void state_saved();
  // Throws UserError when a tensor is missing, or the adapter that the state
  // names.
  void load_state(
      const artifact::TensorMap& from, const std::vector<sweep::EvalSet>& sets);

  // Puts the files of the best adapter into FOLDER too; false where none is
  // kept.
  bool take_over() const;

 private:
  std::filesystem::path path(std::int64_t step) const;
  // Removes all kept adapters but those of the two steps.
  void remove_but(std::int64_t one, std::int64_t other) const;

  std::filesystem::path folder_;
  BestOptions options_;
  std::int64_t step_ = 0;
  std::int64_t waited_ = 0;
  std::int64_t saved_step_ = 0;  // of the best in the last saved state
  std::vector<sweep::EvalScore> scores_;
};

}  // namespace fettle::tune
