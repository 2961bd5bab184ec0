// SPDX-License-Identifier: Apache-2.0
// The table of importance scores. A score is one observer of the sweeps and one
// row here; nothing else knows its name.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/model_config.h"
#include "sweep/observer.h"

namespace fettle::analyze {

enum class Unit { kNeuron, kExpert };

struct ScoreContext {
  const model::ModelConfig& config;  // outlives the observer
  std::uint64_t seed = 0;
};

// Consecutive sequences whose gradient is taken as one, and how they were cut.
struct GradientBatch {
  std::int64_t micro_batches = 0;
  std::int64_t loss_tokens = 0;  // scored positions
};

// Sums one score over any number of sweeps. A tap that runs for several experts
// at once only touches what belongs to its expert.
class ScoreObserver : public sweep::Observer {
 public:
  // Tells what the next sweeps pass: the batches in the order of their
  // micro-batches.
  virtual void begin_sweeps(std::span<const GradientBatch>) {}
  // The score so far: [S] or [E] fp32 on the CPU.
  virtual at::Tensor score(std::int64_t layer) const = 0;
};

struct ScoreMethod {
  std::string_view name;
  Unit unit;
  bool needs_backward;
  bool needs_gradient_batches;  // batches of a fixed number of sequences
  std::string_view help;
  std::unique_ptr<ScoreObserver> (*make)(const ScoreContext&);
};

std::span<const ScoreMethod> score_methods();

// Throws UserError naming the known scores.
const ScoreMethod& find_score(std::string_view name);

// The makers of the table's rows, one file each.
std::unique_ptr<ScoreObserver> make_mask_fisher(const ScoreContext&);
std::unique_ptr<ScoreObserver> make_grad_abs(const ScoreContext&);
std::unique_ptr<ScoreObserver> make_wanda(const ScoreContext&);
std::unique_ptr<ScoreObserver> make_magnitude(const ScoreContext&);
std::unique_ptr<ScoreObserver> make_random(const ScoreContext&);
std::unique_ptr<ScoreObserver> make_reap(const ScoreContext&);
std::unique_ptr<ScoreObserver> make_frequency(const ScoreContext&);
std::unique_ptr<ScoreObserver> make_gate_mass(const ScoreContext&);

}  // namespace fettle::analyze
