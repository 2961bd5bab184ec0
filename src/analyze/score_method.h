// SPDX-License-Identifier: Apache-2.0
// The table of importance scores. A score is one observer of the sweeps, which
// keeps sums, one pure function from sums to scores, and one row here; nothing
// else knows its name.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "artifact/score_file.h"
#include "model/family/model_config.h"
#include "sweep/observer.h"

namespace fettle::analyze {

using artifact::Reduction;
using artifact::Unit;

// The sums of a score over a layer, by name.
using Sums = std::map<std::string, artifact::Sum>;

// The values of one of them. Throws UserError when it is missing.
const at::Tensor& values_of(const Sums& sums, const std::string& name);

struct ScoreContext {
  const model::ModelConfig& config;  // outlives the observer
  std::uint64_t seed = 0;
  // Keep what can't be added otherwise: obs' second moments.
  bool keep_moments = false;
  ranks::Team team = {};  // which the sweeps are divided among
};

// Consecutive sequences whose gradient is taken as one, and how they were cut.
struct GradientBatch {
  std::int64_t micro_batches = 0;
  std::int64_t loss_tokens = 0;  // scored positions
};

// Sums over any number of sweeps. A tap that runs for several experts at once
// only touches what belongs to its expert.
class ScoreObserver : public sweep::Observer {
 public:
  // Tells what the next sweeps pass: the batches in the order of their
  // micro-batches.
  virtual void begin_sweeps(std::span<const GradientBatch>) {}
  // The sums so far.
  virtual Sums sums(std::int64_t layer) const = 0;
  // Goes on from sums taken earlier, of the same names and shapes.
  virtual void restore(std::int64_t layer, const Sums& sums) = 0;
};

using ExpertWidths = std::vector<std::int64_t>;

struct ScoreMethod {
  std::string_view name;
  Unit unit = Unit::kNeuron;
  bool needs_backward = false;
  bool needs_gradient_batches = false;  // of a fixed number of sequences
  bool needs_one_chunk = false;         // unless moments are kept
  bool reads_data = true;               // not of the weights alone
  int neuron_sums = 0;                  // sums of one value a neuron
  std::string_view help = {};
  std::string_view measured_in = {};  // units
  // What a score counts for when the loss that a cut adds is predicted by the
  // sum of the scores of what is cut; 0: it predicts none.
  double nats_per_score = 0;
  std::unique_ptr<ScoreObserver> (*make)(const ScoreContext&) = nullptr;
  // The scores of a layer's experts of these widths: [S] or [E] fp32.
  at::Tensor (*score)(const Sums&, const ExpertWidths&) = nullptr;
  // Bytes held beside the sums while a layer is in use; null: none.
  std::int64_t (*layer_bytes)(const model::ModelConfig&) = nullptr;
};

std::span<const ScoreMethod> score_methods();

// Throws UserError naming the known scores.
const ScoreMethod& find_score(std::string_view name);

// The table's rows, one file each or a few that belong together.
ScoreMethod mask_fisher_score();
ScoreMethod weight_fisher_score();
ScoreMethod grad_abs_score();
ScoreMethod heapr_score();
ScoreMethod camera_score();
ScoreMethod obs_score();
ScoreMethod wanda_score();
ScoreMethod magnitude_score();
ScoreMethod random_score();
ScoreMethod reap_score();
ScoreMethod frequency_score();
ScoreMethod gate_mass_score();
ScoreMethod expert_fisher_score();

}  // namespace fettle::analyze
