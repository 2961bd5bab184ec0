// SPDX-License-Identifier: Apache-2.0
#include "cli/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "cli/data_flags.h"
#include "cli/model_option.h"
#include "cli/recipe_node.h"
#include "core/error.h"

namespace fettle::cli {
namespace {

// Options of commands that have no place in a stage, and why.
struct NoStageOption {
  std::string_view stages;  // by spaces; empty: all
  std::string_view names;   // by spaces
  const char* why;
};

constexpr const char* kForAll =
    "is for the whole chain: give it to fettle run, on the command line";

constexpr std::array<NoStageOption, 9> kNoStageOptions{{
    {"", "out", "is the recipe's to name: each stage has a folder in its out"},
    {"", "resume restart", "is an option of fettle run"},
    {"", "seed", "is a key of the recipe, for all stages"},
    {"", "device compute_dtype vram ram scratch threads quiet json", kForAll},
    {"trim quant",
     "plan_only",
     "leaves no model for the next stage; use the command itself"},
    {"trim", "report", "goes with plan_only; a trim writes report.html"},
    {"trim", "scores", "are those of the analyze stage before it"},
    {"analyze", "merge", "adds up runs of the command; a stage reads data"},
    {"tune", "merge", "is what a recipe does behind each tune by itself"},
}};

bool has_word(std::string_view words, std::string_view word) {
  const std::string padded = fmt::format(" {} ", words);
  return padded.find(fmt::format(" {} ", word)) != std::string::npos;
}

// The reason why a stage has no such option; null: it may have.
const char* why_not(const std::string& stage, std::string_view option) {
  for (const NoStageOption& no : kNoStageOptions) {
    if (!no.stages.empty() && !has_word(no.stages, stage)) continue;
    if (has_word(no.names, option)) return no.why;
  }
  return nullptr;
}

class RecipeParser {
 public:
  explicit RecipeParser(const RecipeReader& reader) : reader_(reader) {}

  Recipe parse(const YAML::Node& root) {
    reader_.for_each_known(
        root,
        "the recipe",
        {"model", "out", "data", "seed", "seq_len", "stages"},
        [&](const std::string& key, const YAML::Node& value) {
          read(key, value);
        });
    for (const char* key : {"model", "out", "stages"}) {
      if (!root[key]) {
        reader_.refuse(root, fmt::format("'{}' is missing", key));
      }
    }
    return std::move(recipe_);
  }

 private:
  void read(const std::string& key, const YAML::Node& value) {
    if (key == "model") {
      recipe_.model = reader_.text(value, key);
      resolve_model(recipe_.model);
    }
    if (key == "out") recipe_.out = reader_.text(value, key);
    if (key == "data") read_data(value);
    if (key == "seed") {
      recipe_.seed =
          static_cast<std::uint64_t>(reader_.whole_number(value, key, 0));
    }
    if (key == "seq_len") {
      recipe_.seq_len = reader_.whole_number(value, key, 2);
    }
    if (key == "stages") read_stages(value);
  }

  void read_data(const YAML::Node& data) {
    reader_.for_each_known(
        data,
        "data",
        {"calibration", "train", "eval", "columns", "form"},
        [&](const std::string& key, const YAML::Node& value) {
          if (key == "columns" || key == "form") {
            return add_data_flag(key, value);
          }
          auto& target = key == "calibration" ? recipe_.calibration
                         : key == "train"     ? recipe_.train
                                              : recipe_.eval;
          target = reader_.texts(value, key);
        });
    check_flags(data);
  }

  void add_data_flag(const std::string& key, const YAML::Node& value) {
    const std::string text =
        fmt::format("{}", fmt::join(reader_.texts(value, key), ","));
    (key == "form" ? flags_.form : flags_.columns) = text;
    recipe_.data_flags.push_back(fmt::format("--{}={}", key, text));
  }

  void check_flags(const YAML::Node& data) const {
    try {
      flags_.row_form();
    } catch (const UsageError& error) {
      reader_.refuse(data, error.what());
    }
  }

  void read_stages(const YAML::Node& stages) {
    if (!stages.IsSequence() || stages.size() == 0) {
      reader_.refuse(stages, "'stages' must be a list of at least one stage");
    }
    for (const auto& node : stages) recipe_.stages.push_back(stage(node));
  }

  // "- export" alone, or "- trim: {keep: 0.5}".
  RecipeStage stage(const YAML::Node& node) const {
    if (node.IsScalar()) return {stage_name(node), {}};
    if (!node.IsMap() || node.size() != 1) {
      reader_.refuse(
          node,
          "each of 'stages' must be one name with its options, indented below "
          "it or in braces");
    }
    RecipeStage stage{stage_name(node.begin()->first), {}};
    const YAML::Node options = node.begin()->second;
    if (options.IsNull()) return stage;
    reader_.for_each(
        options,
        fmt::format("options of '{}'", stage.name),
        [&](const std::string& key, const YAML::Node& value) {
          add_option(stage, key, value);
        });
    return stage;
  }

  std::string stage_name(const YAML::Node& node) const {
    return reader_.known_word(
        node,
        reader_.text(node, "stages"),
        "stage",
        {"analyze", "trim", "quant", "tune", "export", "eval"});
  }

  void add_option(
      RecipeStage& stage,
      const std::string& key,
      const YAML::Node& value) const {
    std::string name = key;
    std::ranges::replace(name, '-', '_');
    const std::string text =
        fmt::format("{}", fmt::join(reader_.texts(value, key), ","));
    if (const char* why = why_not(stage.name, name)) {
      if (text == "false") return;
      reader_.refuse(
          value, fmt::format("'{}' of '{}' {}", key, stage.name, why));
    }
    std::string flag = key;
    std::ranges::replace(flag, '_', '-');
    if (stage.has("--" + flag)) {
      reader_.refuse(value, fmt::format("'{}' stands twice", key));
    }
    stage.arguments.push_back(fmt::format("--{}={}", flag, text));
  }

  const RecipeReader& reader_;
  Recipe recipe_;
  DataFlags flags_;
};

}  // namespace

std::optional<std::string> RecipeStage::value(std::string_view option) const {
  const std::string start = fmt::format("{}=", option);
  for (const std::string& argument : arguments) {
    if (argument.starts_with(start)) return argument.substr(start.size());
  }
  return std::nullopt;
}

Recipe read_recipe(const std::filesystem::path& file) {
  const RecipeReader reader(file.string());
  const YAML::Node document = reader.document();
  try {
    return RecipeParser(reader).parse(document);
  } catch (const YAML::Exception& error) {
    reader.refuse(error.mark, "is not a recipe: " + error.msg);
  }
}

}  // namespace fettle::cli
