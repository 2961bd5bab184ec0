// SPDX-License-Identifier: Apache-2.0
// The state of an unfinished run: a folder state-STEP with state.safetensors
// and state.json, which appears whole beside the one before and then replaces
// it. A run killed at any moment finds one whole state, or none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "artifact/tensor_file.h"
#include "core/json.h"

namespace fettle::tune {

struct RunState {
  std::int64_t step = 0;  // steps done
  // What must be the same for a resume to be the same run: model, data,
  // options.
  Json identity = Json::object();
  Json cursor = Json::object();         // position in the training data
  std::int64_t micro_batch_tokens = 0;  // they decide how sums are rounded
  artifact::TensorMap tensors;
};

// Writes `state` under `folder` and removes older states.
void save_state(const std::filesystem::path& folder, const RunState& state);

// The newest state under `folder`, or none. Throws UserError when it is damaged
// or of another format.
std::optional<RunState> load_newest_state(const std::filesystem::path& folder);

void remove_states(const std::filesystem::path& folder);

// Throws UserError naming the first entry in which `now` differs from `saved`.
void check_same_run(const Json& saved, const Json& now);

}  // namespace fettle::tune
