// SPDX-License-Identifier: Apache-2.0
// A recipe: a model, data and a chain of stages, read from YAML. Stage options
// have the names of the command line, dashes as underscores.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::cli {

struct RecipeStage {
  std::string name;  // analyze, trim, quant, tune, export or eval
  // Options in the recipe's order, as command-line arguments: "--keep=0.5".
  std::vector<std::string> arguments;

  // What an option such as "--data" is given, or nothing.
  std::optional<std::string> value(std::string_view option) const;
  bool has(std::string_view option) const { return value(option).has_value(); }
};

struct Recipe {
  std::string model;  // its folder, resolved as MODEL of a command is
  std::string out;
  std::vector<std::string> calibration, train, eval;  // data files
  // How these are read, as arguments: "--form=sharegpt". A stage that names its
  // own way reads them in that.
  std::vector<std::string> data_flags;
  std::uint64_t seed = 1;
  std::int64_t seq_len = 0;  // of the losses in the table; 0: as eval chooses
  std::vector<RecipeStage> stages;
};

// Throws UserError naming file, line and key on malformed YAML, an unknown key
// or stage, a key that occurs twice, a missing one, a value of another kind,
// and options that a recipe sets itself or that belong to the whole chain.
Recipe read_recipe(const std::filesystem::path& file);

}  // namespace fettle::cli
