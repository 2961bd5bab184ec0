// SPDX-License-Identifier: Apache-2.0
#include "model/weights/model_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/text_file.h"
#include "io/checkpoint.h"
#include "io/checkpoint_writer.h"

namespace fettle::model {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kCachePrefix = "models--";
constexpr std::string_view kConvert =
    "Fettle reads safetensors; convert it in Python with "
    "AutoModelForCausalLM.from_pretrained(...).save_pretrained(\"OUT\") of "
    "transformers";

[[noreturn]] void refuse_folder(const fs::path& path, std::string_view why) {
  throw UserError("model", path.string(), why);
}

bool holds_file(const fs::path& folder, std::string_view name) {
  std::error_code ignored;
  return fs::exists(folder / name, ignored);
}

// Names in a folder, sorted; none where it can't be read.
std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  std::ranges::sort(names);
  return names;
}

// The first name that ends so, else an empty one.
std::string name_ending(
    const std::vector<std::string>& names, std::string_view end) {
  const auto found = std::ranges::find_if(
      names, [&](const std::string& name) { return name.ends_with(end); });
  return found == names.end() ? std::string() : *found;
}

bool has_weights(const fs::path& folder) {
  for (const std::string_view stem :
       {std::string_view("model"), io::kPackedStem, io::kOwnStem}) {
    if (holds_file(folder, std::string(stem) + ".safetensors") ||
        holds_file(folder, io::index_name(stem))) {
      return true;
    }
  }
  return false;
}

std::string trimmed_text(const fs::path& file) {
  std::string text = read_text_file(file, "model", 4096);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())))
    text.pop_back();
  return text;
}

// Within the cache's folder of a model: the snapshot that "main" names, else
// the only one; empty where that isn't clear.
fs::path snapshot_in(const fs::path& repository) {
  const fs::path snapshots = repository / "snapshots";
  if (holds_file(repository / "refs", "main")) {
    const std::string name = trimmed_text(repository / "refs" / "main");
    if (!name.empty() && holds_file(snapshots, name)) return snapshots / name;
  }
  const std::vector<std::string> names = names_in(snapshots);
  return names.size() == 1 ? snapshots / names.front() : fs::path();
}

// "ORG/NAME", as the Hub names a model.
bool is_hub_id(const std::string& text) {
  const std::size_t slash = text.find('/');
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' ||
           c == '_' || c == '.';
  };
  return slash != std::string::npos && slash > 0 && slash + 1 < text.size() &&
         text[0] != '.' &&
         std::ranges::count_if(text, plain) + 1 == std::ssize(text);
}

// Where the Hub's own programs keep what they download.
fs::path cache_folder() {
  const auto from = [](const char* name) {
    const char* value = std::getenv(name);
    return fs::path(value != nullptr ? value : "");
  };
  if (const fs::path hub = from("HF_HUB_CACHE"); !hub.empty()) return hub;
  if (const fs::path home = from("HF_HOME"); !home.empty()) return home / "hub";
  return from("HOME") / ".cache" / "huggingface" / "hub";
}

[[noreturn]] void refuse_absent(const fs::path& path) {
  const std::string text = path.string();
  if (!is_hub_id(text)) refuse_folder(path, "there is no such folder");
  std::string repository = text;
  repository.replace(text.find('/'), 1, "--");
  const fs::path cached =
      snapshot_in(cache_folder() / (std::string(kCachePrefix) + repository));
  refuse_folder(
      path,
      cached.empty()
          ? fmt::format(
                "there is no such folder; for the model of this name on the "
                "Hugging Face Hub: hf download {} --local-dir {}, then give "
                "that folder",
                text,
                text.substr(text.find('/') + 1))
          : fmt::format(
                "there is no such folder, but the Hugging Face cache has a "
                "model of this name: give {}",
                cached.string()));
}

[[noreturn]] void refuse_file(const fs::path& path) {
  const std::string name = path.filename().string();
  const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
  if (holds_file(folder, "config.json") && has_weights(folder)) {
    refuse_folder(
        path,
        fmt::format(
            "is one file of a model; give its folder, {}", folder.string()));
  }
  std::error_code error;
  const fs::file_type type = fs::status(path, error).type();
  if (type != fs::file_type::regular) {
    refuse_folder(
        path,
        fmt::format("expected a model folder, found {}", kind_of_file(type)));
  }
  if (name.ends_with(".gguf")) {
    refuse_folder(
        path,
        "is a GGUF file, which Fettle writes and doesn't read; give the folder "
        "of the model that it was made from");
  }
  for (const std::string_view end : {".bin", ".pt", ".pth", ".ckpt"}) {
    if (name.ends_with(end)) {
      refuse_folder(path, fmt::format("holds PyTorch weights; {}", kConvert));
    }
  }
  refuse_folder(
      path,
      "is a file; a model is a folder with config.json and its weights in "
      "safetensors");
}

// Of a folder without config.json.
std::string other_folder(
    const fs::path& path, const std::vector<std::string>& names) {
  if (holds_file(path, "snapshots")) {
    const fs::path snapshot = snapshot_in(path);
    return fmt::format(
        "is the Hugging Face cache's folder of a model; give {}",
        snapshot.empty() ? "the one of its snapshots that you mean"
                         : snapshot.string());
  }
  for (const std::string& name : names) {
    if (!name.starts_with(kCachePrefix)) continue;
    return fmt::format(
        "is a Hugging Face cache; give one of its models, such as {}",
        (path / name).string());
  }
  if (holds_file(path, "adapter_config.json")) {
    return "holds a PEFT adapter, not a model; merge it into its base with "
           "PEFT's merge_and_unload() and give the folder of the result";
  }
  if (holds_file(path, "adapter.json") &&
      holds_file(path, "adapter.safetensors")) {
    return fmt::format(
        "holds an adapter of fettle tune, not a model; make one with: fettle "
        "merge BASE --adapter {} --out OUT",
        path.string());
  }
  if (holds_file(path, "scores.safetensors")) {
    return "holds the scores of fettle analyze; give the model's own folder";
  }
  for (const std::string& name : names) {
    if (holds_file(path / name, "config.json")) {
      return fmt::format(
          "holds no config.json; perhaps you mean {}", (path / name).string());
    }
  }
  if (!name_ending(names, ".gguf").empty()) {
    return "holds GGUF files, which Fettle writes and doesn't read; give the "
           "folder of the model that they were made from";
  }
  return "holds no config.json; expected a model folder. Perhaps an incomplete "
         "download?";
}

// Of a folder with config.json, but without weights as Fettle reads them.
std::string other_weights(const std::vector<std::string>& names) {
  for (const std::string_view end :
       {".bin", ".bin.index.json", ".pt", ".pth", ".h5", ".msgpack"}) {
    const std::string found = name_ending(names, end);
    if (found.empty() || found == "training_args.bin") continue;
    return fmt::format("has its weights in {}; {}", found, kConvert);
  }
  if (const auto found = name_ending(names, ".gguf"); !found.empty()) {
    return fmt::format(
        "has its weights in {}; Fettle reads safetensors: give the folder of "
        "the model that it was made from",
        found);
  }
  if (const auto found = name_ending(names, ".safetensors"); !found.empty()) {
    return fmt::format(
        "expected model.safetensors or model.safetensors.index.json, found {} "
        "alone. Perhaps an incomplete download?",
        found);
  }
  return "holds config.json, but no weights: expected model.safetensors or "
         "model.safetensors.index.json. Perhaps an incomplete download?";
}

}  // namespace

fs::path resolved_model_folder(const fs::path& given) {
  const fs::path path = given.has_filename() ? given : given.parent_path();
  const bool snapshots = path.filename() == "snapshots";
  if (!snapshots && !holds_file(path, "snapshots")) return given;
  if (holds_file(path, "config.json")) return given;
  const fs::path found = snapshot_in(snapshots ? path.parent_path() : path);
  return found.empty() ? given : found;
}

fs::path checked_model_folder(const fs::path& folder) {
  if (holds_file(folder, "config.json") && has_weights(folder)) return folder;
  std::error_code error;
  const fs::file_type type = fs::status(folder, error).type();
  if (type == fs::file_type::not_found || type == fs::file_type::none) {
    refuse_absent(folder);
  }
  if (type != fs::file_type::directory) refuse_file(folder);
  const std::vector<std::string> names = names_in(folder);
  refuse_folder(
      folder,
      holds_file(folder, "config.json") ? other_weights(names)
                                        : other_folder(folder, names));
}

std::string model_name(const fs::path& folder) {
  const fs::path above = folder.parent_path();
  const std::string repository = above.parent_path().filename().string();
  if (above.filename() != "snapshots" ||
      !repository.starts_with(kCachePrefix)) {
    return folder.filename().string();
  }
  const std::string id = repository.substr(kCachePrefix.size());
  const std::size_t dashes = id.find("--");
  return dashes == std::string::npos ? id : id.substr(dashes + 2);
}

}  // namespace fettle::model
