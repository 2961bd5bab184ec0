// SPDX-License-Identifier: Apache-2.0
// A recipe as the commands it stands for: each with its output folder and a key
// over everything that the output depends on.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "cli/recipe.h"

namespace fettle::cli {

struct ChainStep {
  std::string name;     // "02-trim": the folder in the work folder
  std::string command;  // "trim"
  std::vector<std::string> arguments;  // of the command, model first
  std::filesystem::path out;
  bool makes_model = false;
  std::string key;  // hash of command, arguments, data and all steps before
};

// A tune stage becomes two steps, tune and merge. Throws UserError on stages
// that lack what they need (a trim without scores, a tune without data).
std::vector<ChainStep> chain_of(const Recipe& recipe);

}  // namespace fettle::cli
