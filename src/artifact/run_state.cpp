// SPDX-License-Identifier: Apache-2.0
#include "artifact/run_state.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "artifact/shard_set.h"
#include "core/error.h"
#include "io/checksum.h"
#include "io/durable.h"
#include "io/file.h"

namespace fettle::artifact {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kFormat = 1;
constexpr const char* kTensors = "state.safetensors";
constexpr const char* kInfo = "state.json";

std::string folder_name(std::int64_t step) {
  return fmt::format("{}{:08}", kStatePrefix, step);
}

bool is_whole(const fs::path& path) {
  return path.filename().string().starts_with(kStatePrefix) &&
         fs::is_regular_file(path / kTensors) &&
         fs::is_regular_file(path / kInfo);
}

// Empty where there is none.
fs::path newest_state(const fs::path& folder) {
  fs::path newest;
  for (const auto& entry : fs::directory_iterator(folder)) {
    // Steps are zero-padded: the order of names is the order of steps.
    if (is_whole(entry.path())) newest = std::max(newest, entry.path());
  }
  return newest;
}

void remove_states_but(const fs::path& folder, const std::string& kept) {
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kStatePrefix) && name != kept) {
      old.push_back(entry.path());
    }
  }
  for (const fs::path& path : old) io::remove_tree(path);
}

[[noreturn]] void refuse_damaged(
    const fs::path& path, std::string_view stage, const std::string& found) {
  throw UserError(
      stage,
      path.string(),
      found + "; the state is damaged: begin anew with --restart");
}

}  // namespace

bool has_state(const fs::path& folder, std::int64_t step) {
  return is_whole(folder / folder_name(step));
}

void save_state(
    const fs::path& folder, const RunState& state, const FetchTensor& fetch) {
  const std::string name = folder_name(state.step);
  // A state of this step, from this run, is the same state.
  if (is_whole(folder / name)) return;
  io::make_folder(folder / name, [&](const fs::path& made) {
    save_tensors(made / kTensors, {state.tensors, {}}, fetch);
    const Json json{
        {"format", kFormat},
        {"step", state.step},
        {"unit", state.unit},
        {"identity", state.identity},
        {"cursor", state.cursor},
        {"found", state.found},
        {"micro_batch_tokens", state.micro_batch_tokens},
        {"checksum", io::hash_file(made / kTensors)}};
    io::write_file(made / kInfo, json.dump(2) + "\n");
  });
  remove_states_but(folder, name);
}

std::optional<RunState> load_newest_state(
    const fs::path& folder,
    std::string_view stage,
    const LoadTensorsOptions& options) {
  const fs::path newest = newest_state(folder);
  if (newest.empty()) return std::nullopt;
  const Json json = read_json(newest / kInfo, stage);
  const JsonObject info(json, std::string(stage), (newest / kInfo).string());
  if (info.integer("format") != kFormat) {
    info.refuse(
        "format",
        fmt::format(
            "expected {}, found {}; resume with the version of Fettle that "
            "wrote it",
            kFormat,
            info.integer("format")));
  }
  if (io::hash_file(newest / kTensors) != info.string("checksum")) {
    refuse_damaged(
        newest / kTensors,
        stage,
        "expected the checksum in state.json, found another");
  }
  RunState state{
      .step = info.integer("step"),
      .identity = info.object("identity").json(),
      .cursor = info.object("cursor").json(),
      .micro_batch_tokens = info.integer("micro_batch_tokens"),
      .tensors = load_tensors(newest / kTensors, options).tensors,
      .found = Json::object(),
      .unit = info.string_or("unit", "step")};
  if (info.has("found")) state.found = info.object("found").json();
  if (state.step < 0 || state.micro_batch_tokens < 1) {
    refuse_damaged(newest / kInfo, stage, "expected counts of 0 and 1 or more");
  }
  return state;
}

std::string saved_progress(const fs::path& folder) {
  const fs::path newest = newest_state(folder);
  if (!newest.empty()) {
    // Not read with care: a damaged one is still somebody's work.
    const Json info = Json::parse(
        std::ifstream(newest / kInfo), nullptr, /*allow_exceptions=*/false);
    const bool told = info.is_object() && info.contains("unit") &&
                      info["unit"].is_string() && info.contains("step") &&
                      info["step"].is_number_integer();
    return told ? fmt::format(
                      "a run stopped after {} {}",
                      info["unit"].get<std::string>(),
                      info["step"].get<std::int64_t>())
                : "a stopped run";
  }
  return saved_shards(folder);
}

io::AtomicDirectoryOptions resumable_output(bool resume, bool restart) {
  return {
      .resume = resume,
      .restart = restart,
      .left = saved_progress,
      .advice = "go on with --resume, or throw that away with --restart"};
}

io::AtomicDirectoryOptions plain_output() { return {.left = saved_progress}; }

std::int64_t resumed_micro_batch(
    const RunState& state, std::int64_t possible, Reporter* reporter) {
  if (state.micro_batch_tokens <= possible) return state.micro_batch_tokens;
  if (reporter != nullptr) {
    reporter->note(fmt::format(
        "micro-batches of {} tokens instead of {}: the result may differ in "
        "rounding from a run with the memory of before",
        possible,
        state.micro_batch_tokens));
  }
  return possible;
}

void check_same_run(
    const Json& saved, const Json& now, std::string_view stage) {
  const Json was = saved.flatten();
  const Json is = now.flatten();
  const auto differ = [&](const std::string& key,
                          const Json& a,
                          const Json& b) {
    throw UserError(
        stage,
        key.empty() ? "identity" : key.substr(1),
        fmt::format(
            "expected {}, as when this run began, found {}; resume with the "
            "same model, data and options, or begin anew with --restart",
            a.dump(),
            b.dump()));
  };
  for (const auto& [key, value] : was.items()) {
    const Json found = is.contains(key) ? is[key] : Json();
    if (found != value) differ(key, value, found);
  }
  for (const auto& [key, value] : is.items()) {
    if (!was.contains(key)) differ(key, Json(), value);
  }
}

}  // namespace fettle::artifact
