// SPDX-License-Identifier: Apache-2.0
#include "artifact/model_card.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "artifact/card_source.h"
#include "artifact/manifest.h"
#include "tiny_model.h"

namespace fettle::artifact {
namespace {

using Catch::Matchers::Contains;
namespace fs = std::filesystem;

void put_text(const fs::path& path, const std::string& text) {
  std::ofstream(path) << text;
}

std::string text_of(const fs::path& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

constexpr const char* kOwn =
    "---\nlicense: other\nlicense_name: house\nlanguage:\n- en\n- de\n"
    "datasets:\n- secret/set\ntags:\n- chat\n---\n# Mine\n";

TEST_CASE("License and languages of a README are carried over") {
  const testing::TemporaryFolder folder;
  const fs::path readme = folder.path() / "README.md";
  const auto carried = [&](const std::string& text) {
    put_text(readme, text);
    return carried_front_matter(readme);
  };
  REQUIRE(
      carried(kOwn) ==
      "license: other\nlicense_name: house\nlanguage:\n- en\n- de\n");
  REQUIRE(carried("---\r\nlicense: mit\r\n---\r\n") == "license: mit\n");
  REQUIRE(carried("# license: mit\n").empty());
  REQUIRE(carried("---\nlicense: mit\n").empty());  // has no end
  REQUIRE(carried("").empty());
  REQUIRE(carried_front_matter(folder.path() / "none").empty());
}

TEST_CASE("A model is named as a hub names it, else by its folder") {
  const testing::TemporaryFolder folder;
  const fs::path cached =
      folder.path() / "models--Org--A-3B" / "snapshots" / "0123";
  fs::create_directories(cached);
  REQUIRE(model_name(cached) == "Org/A-3B");
  const fs::path own = folder.path() / "mine";
  fs::create_directories(own);
  REQUIRE(model_name(own) == "mine");
  REQUIRE(model_name(own / "") == "mine");
  put_text(own / "config.json", R"({"_name_or_path": "/home/me/mine"})");
  REQUIRE(model_name(own) == "mine");
  put_text(own / "config.json", R"({"_name_or_path": "Org/B"})");
  REQUIRE(model_name(own) == "Org/B");
}

TEST_CASE("A card says what was done, and the user's README is kept") {
  const testing::TemporaryFolder folder;
  const fs::path source = folder.path() / "Source-7B";
  const fs::path trimmed = folder.path() / "a";
  for (const fs::path& path : {source, trimmed}) {
    fs::create_directories(path);
    put_text(path / "config.json", "{}");
  }
  put_text(source / "README.md", kOwn);
  put_text(trimmed / "fettle.safetensors", "");
  StageRecord record{"trim"};
  std::string longest(119, 'a');
  longest += "ü";  // 121 bytes
  record.options = {
      {"keep", 0.5},
      {"plan", "/home/me/plan|x.json"},
      {"match", {"a|b", longest}},
      {"none", nullptr}};
  record.measured = {
      {"before", {{"bytes", 2048}, {"experts", 8}}},
      {"after", {{"bytes", 1024}, {"experts", 6}}}};
  write_manifest(source, trimmed, record);
  REQUIRE(text_of(trimmed / "README.source.md") == kOwn);
  const std::string card = text_of(trimmed / "README.md");
  for (const char* line :
       {"---\nbase_model: Source-7B\nlicense: other\n",
        "- de\npipeline_tag: text-generation\nlibrary_name: fettle\n",
        "- pruned\n---\n",
        "### 1. trim",
        "| keep | 0.5 |",
        "| plan | plan\\|x.json |",
        "| match | a\\|b, aaa",
        "aaa... |",
        "| bytes of weights | 2.00 KiB | 1.00 KiB |",
        "| experts | 8 | 6 |",
        "fettle generate FOLDER"}) {
    REQUIRE_THAT(card, Contains(line));
  }
  for (const char* word : {"/home", "secret", "none", "quantized"}) {
    REQUIRE_THAT(card, !Contains(word));
  }
}

TEST_CASE("A card goes on from stage to stage") {
  const testing::TemporaryFolder folder;
  const fs::path source = folder.path() / "Source-7B";
  const fs::path trimmed = folder.path() / "a", packed = folder.path() / "b";
  for (const fs::path& path : {source, trimmed, packed}) {
    fs::create_directories(path);
    put_text(path / "config.json", "{}");
  }
  put_text(source / "README.md", kOwn);
  StageRecord record{"trim"};
  record.measured = {
      {"before", {{"bytes", 2048}, {"experts", 8}}},
      {"after", {{"bytes", 1024}, {"experts", 6}}}};
  write_manifest(source, trimmed, record);
  add_measured(
      trimmed,
      "quality",
      {{"files",
        {{{"file", "/data/held.jsonl"},
          {"tokens", 10},
          {"nll_before", 2.0},
          {"nll", 2.25},
          {"kl", 0.1}}}}});
  REQUIRE_THAT(
      text_of(trimmed / "README.md"),
      Contains("| held.jsonl | 2.0000 | 2.2500 | 0.1000 |"));
  put_text(packed / "model.gguf", "");
  record = {"quant"};
  record.measured = {{"after", {{"bytes", 512}, {"experts", 6}}}};
  write_manifest(trimmed, packed, record);
  REQUIRE(text_of(packed / "README.source.md") == kOwn);
  for (const char* line :
       {"base_model: Source-7B\nlicense: other\n",
        "library_name: llama.cpp",
        "- pruned\n- quantized\n---",
        "### 2. quant",
        "| bytes of weights | 2.00 KiB | 512 B |"}) {
    REQUIRE_THAT(text_of(packed / "README.md"), Contains(line));
  }
}

TEST_CASE("An adapter's card names its base and what was reached") {
  const testing::TemporaryFolder folder;
  const fs::path base = folder.path() / "Base", out = folder.path() / "out";
  for (const fs::path& path : {base, out}) fs::create_directories(path);
  put_text(base / "config.json", "{}");
  put_text(base / "README.md", kOwn);
  put_text(
      out / "adapter.json",
      R"({"method": "lora", "options": {"rank": 8}, "measured":
      {"held_out_before": {"/a/b.jsonl": {"nll": 2}},
       "held_out_after": {"/a/b.jsonl": {"nll": 1.5}}}})");
  write_adapter_card(out, base);
  const std::string card = text_of(out / "README.md");
  for (const char* line :
       {"base_model: Base\nlicense: other\n",
        "with the method lora",
        "| b.jsonl | 2.0000 | 1.5000 | |",
        "| rank | 8 |"}) {
    REQUIRE_THAT(card, Contains(line));
  }
}

TEST_CASE("A card tells each program's way to load the folder") {
  const testing::TemporaryFolder folder;
  put_text(folder.path() / "config.json", "{}");
  std::string expected, absent = "fettle generate";
  SECTION("stock") {
    expected = "vllm serve FOLDER";
    absent = "trust_remote_code";
  }
  SECTION("code") {
    put_text(folder.path() / "modeling_fettle.py", "");
    expected = "from_pretrained(FOLDER, trust_remote_code=True)";
  }
  SECTION("codes") {
    put_text(
        folder.path() / "config.json",
        R"({"quantization_config": {"quant_method": "compressed-tensors"}})");
    expected = "vllm serve FOLDER";
  }
  SECTION("gptq") {
    put_text(
        folder.path() / "config.json",
        R"({"quantization_config": {"quant_method": "gptq"}})");
    expected = "GPTQModel.load(FOLDER)";
  }
  write_manifest(folder.path(), folder.path(), {"export"});
  const std::string card = text_of(folder.path() / "README.md");
  REQUIRE_THAT(card, Contains(expected));
  REQUIRE_THAT(card, !Contains(absent));
}

}  // namespace
}  // namespace fettle::artifact
