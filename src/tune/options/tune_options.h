// SPDX-License-Identifier: Apache-2.0
// The options of a tune run, by the names that the command line and recipes
// use. option_table.h says what each does and which values it may have.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::tune {

struct TuneOptions {
  std::string method = "usaf";  // see method.h
  std::int64_t steps = 200;
  std::int64_t tokens_per_step = 16384;  // in whole sequences of seq_len
  std::int64_t seq_len = 0;              // see settled()
  std::int64_t save_every = 50;
  std::int64_t eval_every = 50;
  std::int64_t patience = 0;
  std::int64_t max_bad_steps = 3;
  std::string keep_best = "auto";

  double lr = 0.0;       // 0: see default_rates.h
  double warmup = 0.05;  // below 1: share of the run, else steps
  double min_lr_ratio = 0.1;
  double weight_decay = 0.0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double clip_norm = 1.0;

  double frac = 0.05;
  std::string scope = "auto";
  std::int64_t score_sequences = 32;
  std::int64_t reselect_every = 0;
  double drop_fraction = 0.3;  // of the first new choice; falls by a cosine
  std::string drop_by = "delta";

  double rest_below = 0.0;
  std::string unit = "neuron";  // of usaf
  std::string block = "16x16";  // rows x columns
  double attention_frac = 0.05;

  std::string lora_targets = "experts,attention";
  std::int64_t rank = 16;
  double lora_alpha = 32.0;

  std::string router = "auto";
  double router_warmup = 0.1;  // likewise
  double router_lr = 0.0;      // likewise
  double gumbel_noise = 1.0;   // falls by a cosine to 0 at the last step

  double esft_share = 0.2;
  std::string esft_by = "token";

  std::int64_t condensers = 2;        // of a layer
  std::int64_t condenser_after = -1;  // -1: half of the steps
  double bias_rate = 1e-3;
  double condenser_bias_rate = 5e-5;

  std::string match = ".";
  std::string embeddings = "train";
  std::string states = "disk";

  double kd_weight = 1.0;
  std::int64_t kd_top = 64;

  // Seed of the order of the training data.
  std::uint64_t seed = 1;
  // Continue the run that was stopped or killed in the same output folder.
  bool resume = false;
  // Throw away what a stopped run left there.
  bool restart = false;
};

// The methods that options.method joins: "usaf+condenser" is two.
std::vector<std::string> methods_of(const TuneOptions& options);
bool has_method(const TuneOptions& options, std::string_view name);

// The options with what bends to the model where nothing was said: seq_len.
TuneOptions settled(TuneOptions options, const model::ModelConfig& config);

// Steps that a warm-up of `warmup` takes in a run of `steps`: a share of them
// below 1, rounded, else itself.
std::int64_t warmup_steps(double warmup, std::int64_t steps);

// All options but `resume` and `restart`.
Json to_json(const TuneOptions& options);

}  // namespace fettle::tune
