// SPDX-License-Identifier: Apache-2.0
#include "cli/run_record.h"

#include "core/error.h"
#include "io/file.h"

namespace fettle::cli {
namespace {

// A key's value where `json` is an object that has it; else null.
const Json* member(const Json* json, const char* key) {
  if (json == nullptr || !json->is_object()) return nullptr;
  const auto found = json->find(key);
  return found == json->end() ? nullptr : &*found;
}

Json object_or_empty(const Json* json) {
  return json != nullptr && json->is_object() ? *json : Json::object();
}

}  // namespace

namespace fs = std::filesystem;

RunRecord::RunRecord(fs::path work)
    : work_(std::move(work)), json_(Json::object()) {
  if (fs::exists(work_ / "run.json")) {
    json_ = read_json(work_ / "run.json", "run");
    JsonObject(json_, "run", (work_ / "run.json").string());
  }
}

const Json* RunRecord::entry(const ChainStep& step) const {
  const Json* found = member(&json_, step.name.c_str());
  const Json* key = member(found, "key");
  return key != nullptr && *key == step.key ? found : nullptr;
}

bool RunRecord::is_whole(const ChainStep& step) const {
  if (step.out.empty()) return member(entry(step), "result") != nullptr;
  return entry(step) != nullptr && fs::exists(step.out);
}

bool RunRecord::is_begun(const ChainStep& step) const {
  return entry(step) != nullptr && !step.out.empty() && !fs::exists(step.out) &&
         fs::exists(step.out.string() + ".partial");
}

bool RunRecord::is_stale(const ChainStep& step) const {
  return json_.contains(step.name) && entry(step) == nullptr &&
         !step.out.empty() && fs::exists(step.out);
}

void RunRecord::begin(const ChainStep& step) {
  if (entry(step) == nullptr) json_[step.name] = {{"key", step.key}};
  save();
}

void RunRecord::finish(const ChainStep& step, const Json& result) {
  begin(step);
  json_[step.name]["result"] = result;
  save();
}

Json RunRecord::result(const ChainStep& step) const {
  return object_or_empty(member(entry(step), "result"));
}

Json RunRecord::loss(const ChainStep& step, const std::string& key) const {
  const Json* loss = member(entry(step), "loss");
  const Json* known = member(loss, "key");
  if (known == nullptr || *known != key) return nullptr;
  const Json* eval = member(loss, "eval");
  const Json* mean = member(eval, "mean_nll");
  return mean != nullptr && mean->is_number() ? *eval : Json(nullptr);
}

void RunRecord::set_loss(
    const ChainStep& step, const std::string& key, const Json& loss) {
  begin(step);
  json_[step.name]["loss"] = {{"key", key}, {"eval", loss}};
  save();
}

void RunRecord::save() const {
  const fs::path next = work_ / "run.json.next";
  io::write_file(next, json_.dump(2) + "\n");
  std::error_code error;
  fs::rename(next, work_ / "run.json", error);
  if (error) {
    throw UserError(
        "run",
        (work_ / "run.json").string(),
        "cannot be written: " + error.message());
  }
}

}  // namespace fettle::cli
