// SPDX-License-Identifier: Apache-2.0
// The tokens that end what a model says.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/json.h"
#include "model/family/model_config.h"

namespace fettle::model {

// `eos_token_id` of a configuration: a number, a list, or, as null or -1, none.
// `fallback` where the key is absent. Throws UserError on anything else.
std::vector<std::int64_t> parse_end_tokens(
    const JsonObject& json, const std::vector<std::int64_t>& fallback);

// The end tokens of a model folder: those of generation_config.json, else those
// of the configuration. transformers' generate() does the same, but never stops
// if the file exists and names no token; here config.json's tokens then stop
// it. Throws UserError where a token is beyond the vocabulary, too.
std::vector<std::int64_t> end_tokens(
    const std::filesystem::path& folder, const ModelConfig& config);

}  // namespace fettle::model
