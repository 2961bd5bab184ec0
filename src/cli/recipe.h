// SPDX-License-Identifier: Apache-2.0
// A recipe: a model, data and a chain of stages, read from YAML. Stage options
// have the names of the command line, dashes as underscores.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace fettle::cli {

struct RecipeStage {
  std::string name;  // analyze, trim, tune or export
  // Options in the recipe's order, as command-line arguments.
  std::vector<std::string> arguments;
};

struct Recipe {
  std::string model;
  std::string out;
  std::vector<std::string> calibration, train, eval;  // data files
  std::uint64_t seed = 1;
  std::int64_t seq_len = 512;  // of the losses in the table
  std::vector<RecipeStage> stages;
};

// Throws UserError naming file and key on malformed YAML, an unknown key or
// stage, or a missing one.
Recipe read_recipe(const std::filesystem::path& file);

}  // namespace fettle::cli
