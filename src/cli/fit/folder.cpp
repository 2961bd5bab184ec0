// SPDX-License-Identifier: Apache-2.0
#include "cli/fit/folder.h"

#include <fmt/format.h>

#include <utility>

#include "cli/chain.h"
#include "cli/parsed_command.h"
#include "core/error.h"
#include "io/checksum.h"
#include "io/durable.h"
#include "io/file.h"

namespace fettle::cli {

namespace fs = std::filesystem;

void append(Arguments& to, const Arguments& more) {
  to.insert(to.end(), more.begin(), more.end());
}

Arguments FitData::arguments() const {
  Arguments result{"--data"};
  append(result, files);
  result.push_back(fmt::format("--tokens={}", tokens));
  if (seq_len > 0) result.push_back(fmt::format("--seq-len={}", seq_len));
  if (!flags.columns.empty()) result.push_back("--columns=" + flags.columns);
  if (!flags.form.empty()) result.push_back("--form=" + flags.form);
  return result;
}

FitFolder::FitFolder(
    Session& session, fs::path folder, std::string model, const FitData& data)
    : session_(session),
      folder_(std::move(folder)),
      model_(std::move(model)),
      data_(data) {
  std::error_code error;
  fs::create_directories(folder_, error);
  if (!error) return;
  throw UserError(
      "fit", folder_.string(), "cannot be made: " + error.message());
}

std::string FitFolder::key(const FitStep& step) const {
  io::Hasher hasher;
  hasher.update(model_key(model_));
  for (const std::string& argument : step.arguments) {
    hasher.update(argument + "\n");
  }
  for (const auto& file : data_files(data_.files)) {
    hasher.update(io::hash_file(file.path));
  }
  hasher.update(fmt::format("{}\n", session_.seed()));
  for (const std::string& need : step.needs) hasher.update(key_of(need));
  return hasher.digest();
}

bool FitFolder::run(FitStep step) {
  const std::string made_of = key(step);
  const fs::path folder = folder_ / step.name;
  if (key_of(step.name) == made_of && fs::exists(folder)) return true;
  const fs::path begun = folder_ / (step.name + ".begun");
  const bool resumes = fs::exists(begun) && fs::exists(folder) &&
                       read_json(begun, "fit").at("key") == made_of;
  if (!resumes) fs::remove_all(folder);
  io::replace_file(begun, Json{{"key", made_of}}.dump() + "\n");
  if (command_knows(step.command, "--resume")) {
    step.arguments.emplace_back(resumes ? "--resume" : "--restart");
  } else {
    fs::remove_all(folder);
  }
  append(step.arguments, {"--out", folder.string()});
  session_.reporter().note(
      fmt::format("fit: {} ({})", step.command, step.name));
  ParsedCommand command(step.command, step.arguments);
  if (command.run(session_).stopped) return false;
  io::replace_file(
      folder_ / (step.name + ".done"), Json{{"key", made_of}}.dump() + "\n");
  fs::remove(begun);
  return true;
}

std::string FitFolder::key_of(const std::string& name) const {
  const fs::path file = folder_ / (name + ".done");
  if (!fs::exists(file)) return {};
  return read_json(file, "fit").value("key", std::string());
}

void FitFolder::drop(const std::string& name) {
  fs::remove_all(folder_ / name);
  fs::remove(folder_ / (name + ".done"));
}

Json FitFolder::noted(const std::string& name, const std::string& key) const {
  const fs::path file = folder_ / (name + ".json");
  if (!fs::exists(file)) return {};
  Json found = read_json(file, "fit");
  if (found.value("key", std::string()) != key) return {};
  return found.value("result", Json());
}

void FitFolder::note(
    const std::string& name, const std::string& key, Json result) {
  const Json entry{{"key", key}, {"result", std::move(result)}};
  io::replace_file(folder_ / (name + ".json"), entry.dump(1) + "\n");
}

}  // namespace fettle::cli
