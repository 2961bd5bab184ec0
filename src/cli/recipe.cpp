// SPDX-License-Identifier: Apache-2.0
#include "cli/recipe.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "core/error.h"

namespace fettle::cli {
namespace {

class Reader {
 public:
  explicit Reader(std::string file) : file_(std::move(file)) {}

  [[noreturn]] void refuse(const std::string& message) const {
    throw UserError("recipe", file_, message);
  }

  void check_keys(
      const YAML::Node& map,
      const std::string& place,
      const std::vector<std::string>& known) const {
    if (!map.IsMap()) refuse(fmt::format("{} must be a map", place));
    for (const auto& entry : map) {
      const auto key = entry.first.as<std::string>();
      if (std::find(known.begin(), known.end(), key) == known.end()) {
        refuse(fmt::format(
            "unknown key '{}' in {}; known are {}",
            key,
            place,
            fmt::join(known, ", ")));
      }
    }
  }

  std::string required(const YAML::Node& map, const std::string& key) const {
    if (!map[key]) refuse(fmt::format("'{}' is missing", key));
    return map[key].as<std::string>();
  }

  std::vector<std::string> files(
      const YAML::Node& data, const std::string& key) const {
    std::vector<std::string> result;
    if (!data || !data[key]) return result;
    if (data[key].IsScalar()) return {data[key].as<std::string>()};
    for (const auto& file : data[key]) {
      result.push_back(file.as<std::string>());
    }
    return result;
  }

  RecipeStage stage(const YAML::Node& node) const {
    // "- export" alone, or "- trim: {keep: 0.5}".
    if (node.IsScalar()) return checked({node.as<std::string>(), {}});
    if (!node.IsMap() || node.size() != 1) {
      refuse("each of 'stages' must be one name with its options");
    }
    RecipeStage stage{node.begin()->first.as<std::string>(), {}};
    const YAML::Node options = node.begin()->second;
    if (options.IsNull()) return checked(stage);
    if (!options.IsMap()) {
      refuse(fmt::format("options of '{}' must be a map", stage.name));
    }
    for (const auto& option : options) {
      auto flag = option.first.as<std::string>();
      std::replace(flag.begin(), flag.end(), '_', '-');
      stage.arguments.push_back(
          fmt::format("--{}={}", flag, value(option.second, flag)));
    }
    return checked(stage);
  }

 private:
  RecipeStage checked(RecipeStage stage) const {
    const std::vector<std::string> known{
        "analyze", "trim", "quant", "tune", "export"};
    if (std::find(known.begin(), known.end(), stage.name) == known.end()) {
      refuse(fmt::format(
          "unknown stage '{}'; known are {}",
          stage.name,
          fmt::join(known, ", ")));
    }
    return stage;
  }

  std::string value(const YAML::Node& node, const std::string& option) const {
    if (node.IsScalar()) return node.as<std::string>();
    if (!node.IsSequence()) {
      refuse(fmt::format("'{}' must be a value or a list", option));
    }
    std::vector<std::string> parts;
    for (const auto& part : node) parts.push_back(part.as<std::string>());
    return fmt::format("{}", fmt::join(parts, ","));
  }

  std::string file_;
};

Recipe parse(const YAML::Node& root, const Reader& reader) {
  reader.check_keys(
      root,
      "the recipe",
      {"model", "out", "data", "seed", "seq_len", "stages"});
  Recipe recipe;
  recipe.model = reader.required(root, "model");
  recipe.out = reader.required(root, "out");
  if (root["data"]) {
    reader.check_keys(root["data"], "data", {"calibration", "train", "eval"});
    recipe.calibration = reader.files(root["data"], "calibration");
    recipe.train = reader.files(root["data"], "train");
    recipe.eval = reader.files(root["data"], "eval");
  }
  if (root["seed"]) recipe.seed = root["seed"].as<std::uint64_t>();
  if (root["seq_len"]) recipe.seq_len = root["seq_len"].as<std::int64_t>();
  if (!root["stages"] || !root["stages"].IsSequence() ||
      root["stages"].size() == 0) {
    reader.refuse("'stages' must be a list of at least one stage");
  }
  for (const auto& stage : root["stages"]) {
    recipe.stages.push_back(reader.stage(stage));
  }
  return recipe;
}

}  // namespace

Recipe read_recipe(const std::filesystem::path& file) {
  const Reader reader(file.string());
  try {
    return parse(YAML::LoadFile(file.string()), reader);
  } catch (const YAML::BadFile&) {
    reader.refuse("cannot be opened for reading");
  } catch (const YAML::Exception& error) {
    reader.refuse(fmt::format("not a valid recipe: {}", error.what()));
  }
}

}  // namespace fettle::cli
