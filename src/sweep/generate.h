// SPDX-License-Identifier: Apache-2.0
// Decoding with a cache of keys and values, a token at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "model/causal_lm.h"

namespace fettle::sweep {

struct GenerateOptions {
  // Tokens to add at most.
  std::int64_t max_new_tokens = 64;
  // 0: always the likeliest token.
  double temperature = 0.0;
  // Sample from the smallest set of tokens whose probability reaches this.
  double top_p = 1.0;
  std::uint64_t seed = 0;
  // Tokens that end it.
  std::vector<std::int64_t> ends = {};
};

struct GenerateResult {
  std::vector<std::int32_t> ids;  // the new tokens, end token included
  double tokens_per_second = 0;   // new tokens, the prompt's pass excluded
};

// Continues `prompt` until an end token or max_new_tokens;
// `on_token` is called with each. Throws UserError on an empty prompt, or when
// prompt and new tokens pass the model's max_position_embeddings.
GenerateResult generate(
    model::CausalLm& model,
    const std::vector<std::int32_t>& prompt,
    const GenerateOptions& options,
    const std::function<void(std::int32_t)>& on_token);

}  // namespace fettle::sweep
