// SPDX-License-Identifier: Apache-2.0
// What every command shares: device, budgets, threads, seed, progress, and how
// a model and its data are opened.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "artifact/making.h"
#include "cli/common_options.h"
#include "cli/data_flags.h"
#include "core/progress.h"
#include "kernels/crowd_guard.h"
#include "model/causal_lm.h"
#include "ranks/group.h"
#include "ranks/shards.h"
#include "sweep/data.h"
#include "sweep/plan.h"
#include "text/tokenizer.h"

namespace fettle::cli {

// A model with the plan that its memory keeps to.
struct OpenModel {
  sweep::SweepPlan plan;
  std::unique_ptr<model::CausalLm> model;
};

struct CalibrationFiles {
  const std::vector<std::string>& data;  // as --data names them
  std::int64_t seq_len = 0;              // of a window
  std::int64_t tokens = 0;               // 0: all
  DataFlags flags = {};
  bool scored_only = false;  // windows with a token that counts for the loss
};

class Session {
 public:
  // Sets the number of threads, opens the device. Throws UserError when that
  // can't be had.
  explicit Session(const CommonOptions& options);

  Reporter& reporter() { return *reporter_; }
  at::Device device() const { return device_; }
  std::uint64_t seed() const { return options_.seed; }
  const CommonOptions& options() const { return options_; }

  // Opens a model's folder and its tokenizer; reports, once, what lies in the
  // folder and is not used.
  std::unique_ptr<model::ModelReader> read(const std::filesystem::path& folder);
  text::Tokenizer tokenizer(const std::filesystem::path& folder);

  // The least that open() would plan for.
  sweep::SweepPlan least_plan(
      const model::ModelReader& reader, sweep::Workload workload) const;
  // Whether open() would find room.
  bool fits(const model::ModelReader& reader, sweep::Workload workload) const;
  // Plans and opens; reports the plan.
  OpenModel open(const std::filesystem::path& folder, sweep::Workload workload);
  // Opens the model of `reader`; reports the plan.
  OpenModel open(
      std::unique_ptr<model::ModelReader> reader, sweep::Workload workload);

  // For work that passes a model tensor by tensor, without a plan: refuses a
  // --ram that can't hold as many copies of the largest, of layers in float32,
  // of embeddings and head in the type that they are `outer_as_stored`.
  void require_ram(
      const model::ModelReader& reader,
      int copies,
      bool outer_as_stored = false) const;
  // For work that takes `bytes`: refuses a --ram that can't hold them.
  void require_ram(std::int64_t bytes) const;

  // How lines of data become samples of a model.
  text::SampleOptions sample_options(
      const model::ModelReader& reader, const DataFlags& flags = {}) const;

  // Windows for a model, drawn as load_calibration does; reports them.
  sweep::CalibrationData calibration(
      const model::ModelReader& reader, const CalibrationFiles& source);

  // Reports what the data came to, before the work; add_data() adds it to a
  // result.
  void tell_data(
      const std::vector<text::SourceCounts>& counts, const DataUse& use);
  void add_data(Json& result) const;

  // What a report says of how it was made.
  artifact::Making making() const;
  // A recipe's stages have commands of their own.
  void set_command(std::string command) { options_.command = command; }

  // Adds peak memory to a result; where there are ranks, that of each.
  void add_peaks(Json& result) const;

  // The processes that divide the work: this one alone, or several ranks, of
  // which the first writes and prints.
  const ranks::Team& team() const { return team_; }
  bool leads() const { return group_->rank() == 0; }
  // From now on rank 0 works by itself, undivided, and the others wait for it
  // in leave(). Whether this process is rank 0: others return at once.
  bool work_alone();
  // Throws UsageError where there are several ranks, or shards.
  void require_undivided(const char* what) const;
  // Rank 0's value, where a budget that differs would give others.
  std::int64_t as_rank_0(std::int64_t value) const;
  // What a command's run begins and ends with, where there are ranks.
  void wait_for_all() const { group_->barrier(); }
  void leave() const { group_->leave(); }
  void fail(std::string_view reason) const noexcept { group_->fail(reason); }
  // Throws UserError naming a rank whose value is another one.
  void require_same(const char* name, const std::string& value) const;

 private:
  void meet_ranks();
  void bound_vram();
  sweep::Workload here(sweep::Workload workload) const;
  void tell_once(const std::string& text);

  CommonOptions options_;
  std::unique_ptr<ranks::Group> group_;
  ranks::Team team_;
  at::Device device_ = at::kCPU;
  sweep::Budget budget_;
  std::unique_ptr<Reporter> reporter_;
  std::optional<kernels::CrowdGuard> crowd_guard_;
  Json data_;  // what was reported of it
  std::set<std::string> told_;
};

// Tokens of a window that --seq-len asks for: 0 is 512, or the positions that
// the model has where those are fewer. Throws UserError beyond these.
std::int64_t window_tokens(
    const model::ModelConfig& config, std::int64_t asked);
inline constexpr const char* kWindowHelp =
    "Tokens of a window at most (512, or the model's positions where those are "
    "fewer)";

// Parses the arguments of repeated --data options.
std::vector<text::WeightedFile> data_files(
    const std::vector<std::string>& arguments);

}  // namespace fettle::cli
