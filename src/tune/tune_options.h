// SPDX-License-Identifier: Apache-2.0
// The options of a tune run, by the names that the command line and recipes
// use.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/model_config.h"

namespace fettle::tune {

struct TuneOptions {
  // How to tune; see methods().
  std::string method = "usaf";
  // Steps of the whole run, each one forward and one backward sweep.
  std::int64_t steps = 200;
  // Tokens of a step, in whole sequences of seq_len.
  std::int64_t tokens_per_step = 16384;
  // Tokens of a sequence; documents are packed, attention stays inside them.
  std::int64_t seq_len = 2048;
  // Peak learning rate of the experts' weights.
  double lr = 1e-4;
  // Steps over which the rate rises to its peak.
  std::int64_t warmup_steps = 10;
  // Where the rate's cosine ends, as a share of the peak.
  double min_lr_ratio = 0.1;
  // Decoupled weight decay of AdamW.
  double weight_decay = 0.0;
  // AdamW's decay of the mean gradient.
  double beta1 = 0.9;
  // AdamW's decay of the mean squared gradient.
  double beta2 = 0.999;
  // AdamW's term that keeps the division finite.
  double epsilon = 1e-8;
  // Largest norm of the whole gradient, which is scaled down to it; 0: any.
  double clip_norm = 1.0;
  // Share of all experts' neurons that is trained.
  double frac = 0.05;
  // Rank neurons over the whole model (global) or in each layer (layer).
  std::string scope = "global";
  // Sequences whose gradients choose the neurons.
  std::int64_t score_sequences = 32;
  // Steps between new choices of neurons; 0: choose once.
  std::int64_t reselect_every = 0;
  // Share of the neurons exchanged by the first new choice; falls by a cosine.
  double drop_fraction = 0.3;
  // Drop the neurons that moved least (delta), or those that moved and still
  // move least (moment).
  std::string drop_by = "delta";
  // Train the routers too.
  bool train_router = true;
  // Steps before the routers begin to train.
  std::int64_t router_warmup = 20;
  // Peak learning rate of the routers.
  double router_lr = 1e-5;
  // Steps between saved states; 0: only when stopped and at the end.
  std::int64_t save_every = 50;
  // Steps between evaluations on held-out data; 0: only first and last.
  std::int64_t eval_every = 50;
  // Seed of the order of the training data.
  std::uint64_t seed = 1;
  // Continue the run that was stopped or killed in the same output folder.
  bool resume = false;
};

// Methods that exist.
const std::vector<std::string>& methods();

// Throws UserError naming the option when a value is impossible, the method is
// unknown, or the model has no expert to tune or is too short for seq_len.
void check_options(
    const TuneOptions& options, const model::ModelConfig& config);

// All options but `resume`.
Json to_json(const TuneOptions& options);

}  // namespace fettle::tune
