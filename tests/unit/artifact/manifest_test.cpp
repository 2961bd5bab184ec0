// SPDX-License-Identifier: Apache-2.0
#include "artifact/manifest.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <set>

#include "core/error.h"
#include "tiny_model.h"

namespace fettle::artifact {
namespace {

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

void put(const fs::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

TEST_CASE("Companions are copied, weights and records are not") {
  const testing::TemporaryFolder from, to;
  const std::set<std::string> companions{
      "tokenizer.json",
      "tokenizer_config.json",
      "chat_template.jinja",
      "generation_config.json",
      "merges.txt",
      "LICENSE",
      "modeling_x.py"};
  for (const std::string& name : companions) put(from.path() / name, name);
  for (const char* name :
       {"config.json",
        "README.md",
        "README.source.md",
        "model.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "fettle.json",
        "timings.json",
        "quant_errors.json",
        "trim_plan.json"}) {
    put(from.path() / name, "{}");
  }
  fs::create_directory(from.path() / "folder.json");
  fs::permissions(from.path() / "LICENSE", fs::perms::owner_read);
  // Twice, as when a killed run is resumed.
  copy_companions(from.path(), to.path());
  copy_companions(from.path(), to.path());
  const auto mode = fs::status(to.path() / "LICENSE").permissions();
  REQUIRE((mode & fs::perms::owner_write) != fs::perms::none);
  std::set<std::string> found;
  for (const auto& entry : fs::directory_iterator(to.path())) {
    found.insert(entry.path().filename().string());
  }
  REQUIRE(found == companions);
}

TEST_CASE("Further chat templates are carried, and copies can be written") {
  const testing::TemporaryFolder from, to;
  const fs::path folder = from.path() / "additional_chat_templates";
  fs::create_directory(folder);
  put(folder / "tool_use.jinja", "a");
  put(from.path() / "tokenizer.json", "{}");
  for (const fs::path& path :
       {folder / "tool_use.jinja", from.path() / "tokenizer.json"}) {
    fs::permissions(path, fs::perms::owner_read);
  }
  copy_companions(from.path(), to.path());
  for (const char* name :
       {"additional_chat_templates/tool_use.jinja", "tokenizer.json"}) {
    const auto allowed = fs::status(to.path() / name).permissions();
    REQUIRE((allowed & fs::perms::owner_write) != fs::perms::none);
  }
}

TEST_CASE("A companion that can't be copied is named") {
  const testing::TemporaryFolder from;
  put(from.path() / "merges.txt", "a");
  REQUIRE_THROWS_WITH(
      copy_companions(from.path(), from.path() / "missing"),
      Contains("merges.txt"));
}

TEST_CASE("Manifests carry the stages before them") {
  const testing::TemporaryFolder a, b, c;
  write_manifest(a.path(), b.path(), {"trim", "f1", {{"keep", 0.5}}, {}});
  write_manifest(b.path(), c.path(), {"export", "f2", {}, {{"bytes", 3}}});
  const Json json = read_json(c.path() / "fettle.json", "test");
  REQUIRE(json["stages"].size() == 2);
  REQUIRE(json["stages"][0]["stage"] == "trim");
  REQUIRE(json["stages"][0]["options"]["keep"] == 0.5);
  REQUIRE(json["stages"][1]["input_fingerprint"] == "f2");
  REQUIRE(json["stages"][1]["measured"]["bytes"] == 3);
  REQUIRE(json["stages"][1]["version"] == std::string(version()));

  set_measured(c.path(), {{"bytes", 4}});
  const Json changed = read_json(c.path() / "fettle.json", "test");
  REQUIRE(changed["stages"][1]["measured"]["bytes"] == 4);
  REQUIRE(changed["stages"][0] == json["stages"][0]);
  add_measured(c.path(), "quality", {{"kl", 0.5}});
  const Json more = read_json(c.path() / "fettle.json", "test");
  REQUIRE(more["stages"][1]["measured"]["bytes"] == 4);
  REQUIRE(more["stages"][1]["measured"]["quality"]["kl"] == 0.5);
}

TEST_CASE("A manifest of another format is refused") {
  const testing::TemporaryFolder from, to;
  put(from.path() / "fettle.json",
      GENERATE(
          R"({"format": 2, "stages": []})",
          R"({"format": 1, "stages": 5})",
          R"({"format": 1, "stages": [5]})"));
  REQUIRE_THROWS_AS(
      write_manifest(from.path(), to.path(), {"trim", "f", {}, {}}), UserError);
}

}  // namespace
}  // namespace fettle::artifact
