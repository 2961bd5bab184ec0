// SPDX-License-Identifier: Apache-2.0
#include "artifact/run_state.h"

#include <fmt/format.h>

#include <string>

#include "core/error.h"
#include "io/atomic_directory.h"
#include "io/checksum.h"
#include "io/file.h"

namespace fettle::artifact {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kFormat = 1;
constexpr std::string_view kPrefix = "state-";
constexpr const char* kTensors = "state.safetensors";
constexpr const char* kInfo = "state.json";

std::string folder_name(std::int64_t step) {
  return fmt::format("{}{:08}", kPrefix, step);
}

bool is_whole(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with(kPrefix) && !name.ends_with(".partial");
}

void remove_states_but(const fs::path& folder, const std::string& kept) {
  std::vector<fs::path> old;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kPrefix) && name != kept) old.push_back(entry.path());
  }
  for (const fs::path& path : old) fs::remove_all(path);
}

}  // namespace

void save_state(const fs::path& folder, const RunState& state) {
  const std::string name = folder_name(state.step);
  // The same step of the same run is the same state.
  if (fs::exists(folder / name)) return;
  io::AtomicDirectory directory(folder / name, {.keep_unfinished = false});
  save_tensors(directory.path() / kTensors, {state.tensors, {}});
  const Json json{
      {"format", kFormat},
      {"step", state.step},
      {"identity", state.identity},
      {"cursor", state.cursor},
      {"micro_batch_tokens", state.micro_batch_tokens},
      {"checksum", io::hash_file(directory.path() / kTensors)}};
  io::write_file(directory.path() / kInfo, json.dump(2) + "\n");
  directory.commit();
  remove_states_but(folder, name);
}

std::optional<RunState> load_newest_state(
    const fs::path& folder, std::string_view stage) {
  fs::path newest;
  for (const auto& entry : fs::directory_iterator(folder)) {
    // Steps are zero-padded: the order of names is the order of steps.
    if (is_whole(entry.path())) newest = std::max(newest, entry.path());
  }
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
    throw UserError(
        stage,
        (newest / kTensors).string(),
        "expected the checksum in state.json, found another; the state is "
        "damaged: start again without --resume");
  }
  return RunState{
      info.integer("step"),
      info.at("identity"),
      info.at("cursor"),
      info.integer("micro_batch_tokens"),
      load_tensors(newest / kTensors).tensors};
}

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

void remove_states(const fs::path& folder) { remove_states_but(folder, ""); }

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
            "same model, data and options, or start again without --resume",
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
