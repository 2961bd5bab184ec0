// SPDX-License-Identifier: Apache-2.0
// A recipe as the commands it runs: each with its output folder and a key
// over everything that the output depends on.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "cli/recipe.h"

namespace fettle::cli {

struct ChainStep {
  std::string name;     // "02-trim": the folder in the work folder
  std::string command;  // "trim"
  std::vector<std::string> arguments;  // of the command, model first
  std::filesystem::path out;           // empty: it writes none (eval)
  bool makes_model = false;
  // Hash of command, arguments, the files that they name to be read, and all
  // that the model was made from.
  std::string key;
};

// A tune stage becomes two steps, tune and merge. Throws UserError on stages
// that lack what they need (a trim without scores, a tune without data), and on
// data that can't be read.
std::vector<ChainStep> chain_of(const Recipe& recipe);

// The key of the model that the recipe begins with: its weights, and the files
// beside them that say how text becomes tokens and where it ends.
std::string model_key(const std::filesystem::path& folder);

// What the losses in the table depend on beside the model: data and how it is
// read, length of windows, and the type that is computed in.
std::string loss_key(const Recipe& recipe, std::string_view compute_type);

}  // namespace fettle::cli
