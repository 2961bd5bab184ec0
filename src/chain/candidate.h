// SPDX-License-Identifier: Apache-2.0
// A model that may be made of another one: a share of its experts' neurons, its
// weights in one scheme, for one program. Tells what it takes, by the counts
// that runs plan with.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "chain/by_part.h"
#include "chain/engine.h"
#include "chain/fit_request.h"
#include "chain/fit_source.h"
#include "quant/scheme.h"
#include "sweep/plan.h"

namespace fettle::chain {

// Bytes where the model runs: on a card, or in RAM where the CPU computes.
struct Footprint {
  ByPart weights = {};       // in memory
  ByPart stored = {};        // of the folder's tensors
  std::int64_t file = 0;     // all of `stored`
  std::int64_t state = 0;    // of all conversations
  std::int64_t working = 0;  // a prompt at work, layers on their way, slack
  std::int64_t runtime = 0;  // program, libraries, driver
  std::int64_t total = 0;    // all of it: what there must be
  std::int64_t ram = 0;      // beside a card; on a CPU `total`
  std::int64_t least = 0;    // with which it runs, reading layers anew
  std::int64_t layers = 0;   // of which a part may be read anew; 0: none may
  std::int64_t layer_experts = 0;  // of a layer, which may lie elsewhere

  // Bytes in memory a byte of the file, at least 1.
  double widening() const;
};

struct Cut {
  double keep = 1.0;  // share of the experts' neurons
  SchemeRow scheme = {};
};

// A model each of whose weights is planned: as many layers as the source has,
// and the headers of weights that are to be packed.
struct PlannedWeights {
  model::ModelConfig config;
  std::function<std::optional<model::PackedHeader>(const model::WeightId&)>
      packed;
};

class Candidate {
 public:
  // `source` and `engine` must outlive the candidate.
  Candidate(
      const FitSource& source,
      const Engine& engine,
      const Cut& cut,
      bool on_card);
  Candidate(
      const FitSource& source,
      const Engine& engine,
      PlannedWeights plan,
      bool on_card);

  // Why the program has no place for it; empty where it has. Nothing else may
  // be asked of a candidate that has a reason.
  const std::string& why_not() const { return why_not_; }
  const Cut& cut() const { return cut_; }
  std::int64_t width() const { return width_; }  // of the widest expert

  // With `parallel` conversations of `context` tokens.
  Footprint footprint(std::int64_t context, std::int64_t parallel) const;

  // Its layers, one of each kind, and how its weights lie.
  const model::ModelConfig& config() const { return config_; }
  model::WeightForm form(const model::WeightId& id) const;

 private:
  void choose_group();
  void cut_layers();
  void pad_layers(std::int64_t unit);
  void pad_to_blocks();
  void find_refusal();
  void count_weights();
  void plan_memory();
  std::int64_t file_bytes(const model::WeightId& id) const;
  std::int64_t gguf_bytes(const model::WeightId& id) const;
  std::int64_t loaded_bytes(const model::WeightId& id) const;
  std::int64_t held_bytes(const model::WeightId& id, std::int64_t bytes) const;
  std::int64_t count_of(const model::WeightId& id) const;
  std::optional<model::PackedHeader> header(const model::WeightId& id) const;
  model::WeightId in_source(const model::WeightId& id) const;
  sweep::Workload workload(std::int64_t tokens) const;
  at::ScalarType globals_type() const;  // in memory
  Footprint own_footprint(
      Footprint made, std::int64_t context, std::int64_t parallel) const;

  const FitSource& source_;
  const Engine& engine_;
  std::optional<PlannedWeights> plan_;  // without a cut
  std::vector<LayerKind> kinds_;        // of config_'s layers
  Cut cut_;
  bool on_card_;
  quant::Scheme scheme_;
  std::string why_not_;
  std::int64_t width_ = 0;
  model::ModelConfig config_;
  ByPart weights_;
  ByPart stored_;
  std::int64_t all_layers_ = 0;  // as they are loaded
  std::int64_t transit_ = 0;     // layer in use
  model::GlobalBytes globals_;
  sweep::SweepPlan least_;
};

}  // namespace fettle::chain
