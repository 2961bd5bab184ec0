// SPDX-License-Identifier: Apache-2.0
// The next token, drawn from logits. A draw is a function of the logits, the
// tokens before it and the seed: not of what is decoded beside it.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "core/rng.h"

namespace fettle::decode {

struct SamplingOptions {
  // 0: always the likeliest token; else logits are divided by it.
  double temperature = 0.0;
  // Of the likeliest tokens, this many; 0: all (Fan et al. 2018).
  std::int64_t top_k = 0;
  // Of these, the smallest set whose probability reaches this (Holtzman et al.
  // 2020).
  double top_p = 1.0;
  // Of these, those at least this share as likely as the likeliest (Nguyen et
  // al. 2024).
  double min_p = 0.0;
  // Logits of tokens that were there, in the prompt or since, are divided by
  // it, negative ones multiplied (Keskar et al. 2019).
  double repetition_penalty = 1.0;
  // Taken from the logits of tokens that were made: once, and for each time, as
  // OpenAI's API has it.
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  std::uint64_t seed = 0;
  // Added to the logits of tokens, before all else.
  std::vector<std::pair<std::int32_t, float>> bias = {};
};

// A token and the logarithm of its probability.
struct TokenChance {
  std::int32_t id;
  double log_prob;
};

class Sampler {
 public:
  Sampler(const SamplingOptions& options, std::span<const std::int32_t> prompt);

  // The token that follows; it counts as made from then on. Throws UserError on
  // logits that are not numbers.
  std::int32_t next(std::span<const float> logits);

 private:
  void penalise(std::span<float> logits) const;
  std::int32_t draw(std::span<const float> logits);

  SamplingOptions options_;
  Rng rng_;
  // Of each token that was there: how often it was made.
  std::unordered_map<std::int32_t, std::int64_t> seen_;
};

// The chances of `chosen` and of the `count` likeliest tokens, before any
// option changes them, likeliest first.
struct Chances {
  TokenChance chosen;
  std::vector<TokenChance> likeliest;
};
Chances chances_of(
    std::span<const float> logits, std::int32_t chosen, std::int64_t count);

}  // namespace fettle::decode
