// SPDX-License-Identifier: Apache-2.0
// The state of an unfinished run: a folder state-STEP with state.safetensors
// and state.json, which appears whole beside the one before and then replaces
// it. A run killed at any moment finds one whole state, or none.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "artifact/tensor_file.h"
#include "core/json.h"
#include "core/progress.h"
#include "io/atomic_directory.h"

namespace fettle::artifact {

struct RunState {
  std::int64_t step = 0;  // steps or chunks done
  // What a resumed run must share with the run that it continues: model, data,
  // options.
  Json identity = Json::object();
  Json cursor = Json::object();         // position in the data
  std::int64_t micro_batch_tokens = 0;  // they decide how sums are rounded
  TensorMap tensors;
  // What the run has found so far that its result reports.
  Json found = Json::object();
  std::string unit = "step";  // of `step`, for people
};

// The names of folders that hold states begin with this.
inline constexpr std::string_view kStatePrefix = "state-";

// Writes `state` under `folder` and removes older states. See save_tensors() on
// `fetch`.
void save_state(
    const std::filesystem::path& folder,
    const RunState& state,
    const FetchTensor& fetch = {});
// Whether the state of a step is there: save_state() then leaves it.
bool has_state(const std::filesystem::path& folder, std::int64_t step);

// The newest state under `folder`, or none. Throws UserError (of `stage`) when
// it is damaged or of another format.
std::optional<RunState> load_newest_state(
    const std::filesystem::path& folder,
    std::string_view stage,
    const LoadTensorsOptions& options = {});

// The micro-batch that a resumed run takes: the one it was saved with, for the
// same bits, or what memory allows now where that is less, with a note.
std::int64_t resumed_micro_batch(
    const RunState& state, std::int64_t possible, Reporter* reporter);

// The progress of a stopped run of any stage in a folder, which can be
// resumed, such as "a run stopped after step 7"; empty: there is none.
std::string saved_progress(const std::filesystem::path& folder);

// How stages open their output folders, so that none throws away what another
// saved: one that saves states, and one that has none to go on from.
io::AtomicDirectoryOptions resumable_output(bool resume, bool restart);
io::AtomicDirectoryOptions plain_output();

// Throws UserError (of `stage`) naming the first entry in which `now` differs
// from `saved`.
void check_same_run(const Json& saved, const Json& now, std::string_view stage);

}  // namespace fettle::artifact
