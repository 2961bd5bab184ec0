// SPDX-License-Identifier: Apache-2.0
#include "cli/chain.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "cli/parsed_command.h"
#include "cli/session.h"
#include "cli/trim_flags.h"
#include "core/error.h"
#include "io/checkpoint.h"
#include "io/checksum.h"

namespace fettle::cli {
namespace {

namespace fs = std::filesystem;

// The type of a merged model, which tune takes under a name of its own.
constexpr std::string_view kMergeDtype = "--merge-dtype=";

// An argument of tune as one of merge, or nothing where it is tune's.
std::optional<std::string> merge_argument(const std::string& argument) {
  if (!argument.starts_with(kMergeDtype)) return std::nullopt;
  return "--dtype=" + argument.substr(kMergeDtype.size());
}

// Whether a file beside the weights says how the model is to be used; others
// are for people to read, or are known by the checkpoint.
bool is_read(const fs::path& file) {
  constexpr std::array<std::string_view, 5> kRead{
      ".json", ".jinja", ".txt", ".model", ".tiktoken"};
  const std::string name = file.filename().string();
  if (name == "config.json" || name == "fettle.json" ||
      name.ends_with(".index.json") || name.starts_with("LICEN")) {
    return false;
  }
  return std::ranges::find(kRead, file.extension().string()) != kRead.end();
}

// By name and content, whatever order the disk lists them in.
void hash_files(
    io::Hasher& hasher,
    const fs::path& folder,
    bool (*wanted)(const fs::path&)) {
  std::map<std::string, fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && wanted(entry.path())) {
      files[entry.path().lexically_relative(folder).string()] = entry.path();
    }
  }
  for (const auto& [name, path] : files) {
    hasher.update(fmt::format("{}\n{}\n", name, io::hash_file(path)));
  }
}

void hash_input(io::Hasher& hasher, const fs::path& path) {
  if (!fs::is_directory(path)) {
    hasher.update(io::hash_file(path));
  } else if (fs::exists(path / "config.json")) {
    hasher.update(model_key(path));
  } else {
    hash_files(hasher, path, [](const fs::path&) { return true; });
  }
}

class ChainBuilder {
 public:
  explicit ChainBuilder(const Recipe& recipe)
      : recipe_(recipe), model_(recipe.model), key_(model_key(recipe.model)) {}

  void add(const RecipeStage& stage) {
    if (stage.name == "analyze") {
      step(stage, {model_}, {data(stage, "--data", recipe_.calibration)});
      scores_ = steps_.back().out.string();
    } else if (stage.name == "trim") {
      add_trim(stage);
    } else if (stage.name == "quant") {
      step(stage, {model_}, quant_data(stage));
      model_made();
    } else if (stage.name == "tune") {
      add_tune(stage);
    } else if (stage.name == "eval") {
      add_eval(stage);
    } else {
      step(stage, {model_}, {});
      steps_.back().makes_model = !is_foreign(stage);
    }
  }

  std::vector<ChainStep> steps() && { return std::move(steps_); }

 private:
  using Files = std::vector<std::string>;
  using Data = std::pair<std::string, Files>;  // an option and its files

  [[noreturn]] static void refuse(
      const RecipeStage& stage, const std::string& why) {
    throw UserError("recipe", fmt::format("stage '{}'", stage.name), why);
  }

  // The recipe's files for an option, unless the stage names its own.
  static Data data(
      const RecipeStage& stage, const std::string& option, const Files& files) {
    if (stage.has(option)) return {};
    if (files.empty()) {
      const char* key = stage.name == "tune"   ? "train"
                        : stage.name == "eval" ? "eval"
                                               : "calibration";
      refuse(
          stage,
          fmt::format(
              "needs data: give the recipe data: {{{}: [..]}}, or the stage "
              "its own data: [..]",
              key));
    }
    return {option, files};
  }

  void add_trim(const RecipeStage& stage) {
    std::vector<std::string> arguments{model_};
    if (!scores_.empty()) {
      arguments.insert(arguments.end(), {"--scores", scores_});
    } else if (!stage.has("--plan")) {
      refuse(stage, "needs an analyze stage before it, or a plan");
    }
    std::vector<Data> read;
    if (wants_data(stage.arguments)) {
      read.push_back(data(stage, "--data", recipe_.calibration));
    }
    step(stage, std::move(arguments), read);
    model_made();
    scores_.clear();
  }

  void add_tune(const RecipeStage& stage) {
    RecipeStage tune{"tune", {}};
    RecipeStage merge{"merge", {}};
    for (const std::string& argument : stage.arguments) {
      if (const auto passed = merge_argument(argument)) {
        merge.arguments.push_back(*passed);
      } else {
        tune.arguments.push_back(argument);
      }
    }
    std::vector<Data> read{data(tune, "--data", recipe_.train)};
    if (!recipe_.eval.empty() && !tune.has("--eval-data")) {
      read.emplace_back("--eval-data", recipe_.eval);
    }
    step(tune, {model_}, read);
    step(merge, {model_, "--adapter", steps_.back().out.string()}, {});
    model_made();
  }

  // Changes no model: what comes behind it doesn't depend on it.
  void add_eval(const RecipeStage& stage) {
    RecipeStage eval = stage;
    for (std::string& argument : eval.arguments) {
      if (argument == "--against=original") {
        argument = "--against=" + recipe_.model;
      }
    }
    if (recipe_.seq_len > 0 && !eval.has("--seq-len")) {
      eval.arguments.push_back(fmt::format("--seq-len={}", recipe_.seq_len));
    }
    const std::string before = key_;
    step(eval, {model_}, {data(eval, "--data", recipe_.eval)});
    key_ = before;
  }

  // Rounding to nearest needs none.
  std::vector<Data> quant_data(const RecipeStage& stage) const {
    if (stage.value("--method") == "rtn") return {};
    return {data(stage, "--data", recipe_.calibration)};
  }

  // Whether an export is one that only other programs read.
  static bool is_foreign(const RecipeStage& stage) {
    const auto format = stage.value("--format");
    return format == "compressed-tensors" || format == "gptq" ||
           format == "gguf";
  }

  void model_made() {
    steps_.back().makes_model = true;
    model_ = steps_.back().out.string();
  }

  // "02-trim", or "02-trim eval" for what writes no folder.
  void name(ChainStep& step) {
    if (step.command != "eval") {
      step.name = fmt::format("{:02}-{}", ++folders_, step.command);
      step.out = fs::path(recipe_.out) / step.name;
      return;
    }
    const auto last = std::find_if(
        steps_.rbegin(), steps_.rend(), [](const ChainStep& earlier) {
          return !earlier.out.empty();
        });
    const std::string base =
        (last == steps_.rend() ? "00-original" : last->name) + " eval";
    step.name = base;
    for (int n = 2; std::ranges::any_of(
             steps_, [&](const auto& s) { return s.name == step.name; });
         ++n) {
      step.name = fmt::format("{} {}", base, n);
    }
  }

  // `arguments` are the chain's own, which its key knows already.
  void step(
      const RecipeStage& stage,
      std::vector<std::string> arguments,
      const std::vector<Data>& read) {
    ChainStep made;
    made.command = stage.name;
    name(made);
    std::vector<fs::path> own(arguments.begin(), arguments.end());
    const std::size_t told = arguments.size();
    for (const auto& [option, files] : read) {
      if (option.empty()) continue;
      arguments.push_back(option);
      arguments.insert(arguments.end(), files.begin(), files.end());
    }
    const bool own_way = stage.has("--columns") || stage.has("--form");
    if (arguments.size() > told && !own_way) {
      arguments.insert(
          arguments.end(),
          recipe_.data_flags.begin(),
          recipe_.data_flags.end());
    }
    arguments.insert(
        arguments.end(), stage.arguments.begin(), stage.arguments.end());
    io::Hasher hasher;
    hasher.update(fmt::format("{}\n{}\n{}\n", key_, recipe_.seed, stage.name));
    for (std::size_t i = told; i < arguments.size(); ++i) {
      hasher.update(arguments[i] + "\n");
    }
    if (!made.out.empty()) {
      arguments.insert(arguments.end(), {"--out", made.out.string()});
    }
    for (const auto& path : ParsedCommand(stage.name, arguments).inputs()) {
      if (std::ranges::find(own, path) == own.end()) {
        hash_input(hasher, require(stage.name, path));
      }
    }
    made.key = key_ = hasher.digest();
    made.arguments = std::move(arguments);
    steps_.push_back(std::move(made));
  }

  static const fs::path& require(
      const std::string& command, const fs::path& path) {
    std::error_code ignored;
    if (!fs::exists(path, ignored)) {
      throw UserError(
          "recipe",
          fmt::format("stage '{}'", command),
          fmt::format("there is no file or folder {}", path.string()));
    }
    return path;
  }

  const Recipe& recipe_;
  std::vector<ChainStep> steps_;
  int folders_ = 0;
  std::string model_, scores_, key_;
};

}  // namespace

std::vector<ChainStep> chain_of(const Recipe& recipe) {
  ChainBuilder builder(recipe);
  for (const auto& stage : recipe.stages) builder.add(stage);
  return std::move(builder).steps();
}

std::string model_key(const fs::path& folder) {
  io::Hasher hasher;
  hasher.update(
      io::fingerprint(io::Checkpoint::open(folder), folder / "config.json"));
  hash_files(hasher, folder, is_read);
  return hasher.digest();
}

std::string loss_key(const Recipe& recipe, std::string_view compute_type) {
  io::Hasher hasher;
  hasher.update(fmt::format("{}\n{}\n", recipe.seq_len, compute_type));
  for (const auto* arguments : {&recipe.eval, &recipe.data_flags}) {
    for (const std::string& argument : *arguments) {
      hasher.update(argument + "\n");
    }
  }
  for (const auto& file : data_files(recipe.eval)) {
    hasher.update(io::hash_file(file.path));
  }
  return hasher.digest();
}

}  // namespace fettle::cli
