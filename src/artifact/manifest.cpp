// SPDX-License-Identifier: Apache-2.0
#include "artifact/manifest.h"

#include <algorithm>
#include <array>
#include <system_error>

#include "artifact/model_card.h"
#include "core/error.h"
#include "io/durable.h"
#include "io/file.h"

namespace fettle::artifact {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kFormat = 1;
constexpr const char* kFile = "fettle.json";
// Chat templates beside the main one, which transformers names by their files.
constexpr const char* kMoreTemplates = "additional_chat_templates";

bool is_companion(const fs::path& path) {
  constexpr std::array<std::string_view, 7> kExtensions{
      ".json", ".jinja", ".txt", ".md", ".model", ".tiktoken", ".py"};
  constexpr std::array<std::string_view, 9> kOurs{
      "config.json",
      kFile,
      "trim_plan.json",
      "quant_plan.json",
      "quant_report.json",
      "quant_errors.json",
      "quant_state.json",
      "timings.json",
      "metrics.jsonl"};
  constexpr std::array<std::string_view, 5> kTexts{
      "LICENSE", "LICENCE", "NOTICE", "README", "COPYING"};
  const std::string name = path.filename().string();
  if (name.ends_with(".index.json")) return false;
  if (name == "README.md" || name == kSourceReadme) return false;
  if (std::ranges::find(kOurs, name) != kOurs.end()) return false;
  const std::string extension = path.extension().string();
  if (std::ranges::find(kExtensions, extension) != kExtensions.end()) {
    return true;
  }
  return std::ranges::any_of(
      kTexts, [&](std::string_view text) { return name.starts_with(text); });
}

// The copy can be written to, whatever the source allows.
void copy_one(const fs::path& from, const fs::path& to) {
  io::copy_contents(from, to);
  std::error_code ignored;
  fs::permissions(to, fs::perms::owner_write, fs::perm_options::add, ignored);
}

// The files of `from`, whose folders are not ours.
void copy_folder(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_directories(to, error);
  if (error) {
    throw UserError(
        "manifest", to.string(), "can't be made: " + error.message());
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    if (!entry.is_regular_file()) continue;
    copy_one(entry.path(), to / entry.path().filename());
  }
}

Json read_manifest(const fs::path& path) {
  Json json = read_json(path, "manifest");
  const JsonObject object(json, "manifest", path.string());
  if (object.integer("format") != kFormat) {
    object.refuse("format", "expected 1; use the version that wrote it");
  }
  const Json& stages = object.at("stages");
  const auto is_object = [](const Json& stage) { return stage.is_object(); };
  if (!stages.is_array() || !std::ranges::all_of(stages, is_object)) {
    object.refuse("stages", "expected a list of objects");
  }
  return json;
}

}  // namespace

std::string_view version() { return FETTLE_VERSION; }

void copy_companions(const fs::path& from, const fs::path& to) {
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    if (entry.is_directory() && entry.path().filename() == kMoreTemplates) {
      copy_folder(entry.path(), to / kMoreTemplates);
    }
    if (!entry.is_regular_file() || !is_companion(entry.path())) continue;
    copy_one(entry.path(), to / entry.path().filename());
  }
}

void write_manifest(
    const fs::path& from, const fs::path& to, const StageRecord& record) {
  Json json = {{"format", kFormat}, {"stages", Json::array()}};
  if (fs::exists(from / kFile)) json = read_manifest(from / kFile);
  if (!json.contains("base_model")) json["base_model"] = model_name(from);
  json["stages"].push_back(
      {{"stage", record.stage},
       {"version", version()},
       {"input_fingerprint", record.input_fingerprint},
       {"options", record.options},
       {"measured", record.measured}});
  io::write_file(to / kFile, json.dump(1) + "\n");
  keep_readme(from, to);
  write_card(to);
}

void set_measured(const fs::path& folder, const Json& measured) {
  Json json = read_manifest(folder / kFile);
  FETTLE_ASSERT(!json["stages"].empty());
  json["stages"].back()["measured"] = measured;
  io::replace_file(folder / kFile, json.dump(1) + "\n");
  write_card(folder);
}

void add_measured(
    const fs::path& folder, const std::string& name, const Json& value) {
  Json json = read_manifest(folder / kFile);
  FETTLE_ASSERT(!json["stages"].empty());
  json["stages"].back()["measured"][name] = value;
  io::replace_file(folder / kFile, json.dump(1) + "\n");
  write_card(folder);
}

}  // namespace fettle::artifact
