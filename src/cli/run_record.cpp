// SPDX-License-Identifier: Apache-2.0
#include "cli/run_record.h"

#include <fstream>

#include "core/error.h"

namespace fettle::cli {

namespace fs = std::filesystem;

RunRecord::RunRecord(fs::path work)
    : work_(std::move(work)), json_(Json::object()) {
  if (fs::exists(work_ / "run.json")) {
    json_ = read_json(work_ / "run.json", "run");
    JsonObject(json_, "run", (work_ / "run.json").string());
  }
}

bool RunRecord::has_key(const ChainStep& step) const {
  const auto found = json_.find(step.name);
  return found != json_.end() && found->is_object() &&
         found->value("key", "") == step.key;
}

bool RunRecord::is_whole(const ChainStep& step) const {
  return has_key(step) && fs::exists(step.out);
}

bool RunRecord::is_begun(const ChainStep& step) const {
  return has_key(step) && !fs::exists(step.out) &&
         fs::exists(step.out.string() + ".partial");
}

bool RunRecord::is_stale(const ChainStep& step) const {
  return json_.contains(step.name) && !has_key(step) && fs::exists(step.out);
}

void RunRecord::begin(const ChainStep& step) {
  if (!has_key(step)) json_[step.name] = {{"key", step.key}};
  save();
}

void RunRecord::finish(const ChainStep& step, const Json& result) {
  json_[step.name] = {{"key", step.key}, {"result", result}};
  save();
}

Json RunRecord::result(const ChainStep& step) const {
  if (!has_key(step)) return Json::object();
  return json_[step.name].value("result", Json::object());
}

void RunRecord::save() const {
  const fs::path next = work_ / "run.json.next";
  {
    std::ofstream file(next, std::ios::trunc);
    file << json_.dump(2) << "\n";
    file.flush();
    if (!file) throw UserError("run", next.string(), "cannot be written");
  }
  fs::rename(next, work_ / "run.json");
}

}  // namespace fettle::cli
