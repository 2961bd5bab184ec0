// SPDX-License-Identifier: Apache-2.0
#include "cli/chain.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/session.h"
#include "cli/trim_flags.h"
#include "core/error.h"
#include "io/checkpoint.h"
#include "io/checksum.h"

namespace fettle::cli {
namespace {

class Builder {
 public:
  explicit Builder(const Recipe& recipe)
      : recipe_(recipe), model_(recipe.model) {
    const auto checkpoint = io::Checkpoint::open(recipe.model);
    key_ = io::fingerprint(
        checkpoint, std::filesystem::path(recipe.model) / "config.json");
  }

  void add(const RecipeStage& stage) {
    if (stage.name == "analyze") {
      step(stage, {model_}, {{"--data", need(recipe_.calibration, stage)}});
      scores_ = steps_.back().out.string();
    } else if (stage.name == "trim") {
      if (scores_.empty()) refuse(stage, "needs an analyze stage before it");
      step(stage, {model_, "--scores", scores_}, trim_data(stage));
      model_made();
      scores_.clear();
    } else if (stage.name == "quant") {
      step(stage, {model_}, quant_data(stage));
      model_made();
    } else if (stage.name == "tune") {
      step(
          stage,
          {model_},
          {{"--data", need(recipe_.train, stage)},
           {"--eval-data", recipe_.eval}});
      const std::string adapter = steps_.back().out.string();
      step({"merge", {}}, {model_, "--adapter", adapter}, {});
      model_made();
    } else {
      step(stage, {model_}, {});
      steps_.back().makes_model = !is_foreign(stage);
    }
  }

  std::vector<ChainStep> steps() && { return std::move(steps_); }

 private:
  using Files = std::vector<std::string>;

  [[noreturn]] void refuse(const RecipeStage& stage, const char* why) const {
    throw UserError("recipe", "stage '" + stage.name + "'", why);
  }

  const Files& need(const Files& files, const RecipeStage& stage) const {
    if (files.empty()) {
      refuse(
          stage,
          stage.name == "tune" ? "needs data: {train: [..]}"
                               : "needs data: {calibration: [..]}");
    }
    return files;
  }

  // What a trim reads is the calibration data, unless the stage names its own.
  std::vector<std::pair<std::string, Files>> trim_data(
      const RecipeStage& stage) const {
    if (!wants_data(stage.arguments)) return {};
    return {{"--data", need(recipe_.calibration, stage)}};
  }

  // Rounding to nearest needs none.
  std::vector<std::pair<std::string, Files>> quant_data(
      const RecipeStage& stage) const {
    for (const std::string& argument : stage.arguments) {
      if (argument == "--method=rtn" || argument.starts_with("--data=")) {
        return {};
      }
    }
    return {{"--data", need(recipe_.calibration, stage)}};
  }

  // Whether an export is one that only other programs read.
  static bool is_foreign(const RecipeStage& stage) {
    return std::ranges::any_of(stage.arguments, [](const std::string& option) {
      return option == "--format=compressed-tensors" ||
             option == "--format=gptq" || option == "--format=gguf";
    });
  }

  void model_made() {
    steps_.back().makes_model = true;
    model_ = steps_.back().out.string();
  }

  void step(
      const RecipeStage& stage,
      std::vector<std::string> arguments,
      const std::vector<std::pair<std::string, Files>>& data) {
    ChainStep made;
    made.command = stage.name;
    made.name = fmt::format("{:02}-{}", steps_.size() + 1, stage.name);
    made.out = std::filesystem::path(recipe_.out) / made.name;
    io::Hasher hasher;
    hasher.update(key_ + "\n" + stage.name + "\n");
    for (const auto& argument : stage.arguments) hasher.update(argument + "\n");
    hasher.update(fmt::format("{}", recipe_.seed));
    for (const auto& [option, files] : data) {
      if (files.empty()) continue;
      arguments.push_back(option);
      for (const auto& file : files) {
        arguments.push_back(file);
        hasher.update(file + "\n");
      }
      for (const auto& file : data_files(files)) {
        hasher.update(io::hash_file(file.path));
      }
    }
    for (const auto& a : stage.arguments) arguments.push_back(a);
    arguments.insert(arguments.end(), {"--out", made.out.string()});
    made.arguments = std::move(arguments);
    made.key = key_ = hasher.digest();
    steps_.push_back(std::move(made));
  }

  const Recipe& recipe_;
  std::vector<ChainStep> steps_;
  std::string model_, scores_, key_;
};

}  // namespace

std::vector<ChainStep> chain_of(const Recipe& recipe) {
  Builder builder(recipe);
  for (const auto& stage : recipe.stages) builder.add(stage);
  return std::move(builder).steps();
}

}  // namespace fettle::cli
