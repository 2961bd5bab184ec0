// SPDX-License-Identifier: Apache-2.0
// Where results are going to be written, judged before any work: each command
// calls these before it reads a model.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fettle::cli {

struct Target {
  std::string_view option;  // "--out"
  std::string path;
};

// Throws UsageError when the path is empty, and UserError when it exists or
// can't be made there: a name too long, a parent that is a file or that this
// user may not write to. Makes nothing.
void check_new_folder(const Target& target);

// Checks several new folders, in the order in which they will be written.
// Throws UsageError too when two are one folder, or one lies in a folder that
// is written later, which would then exist. Empty paths mean options that were
// not given.
void check_new_folders(const std::vector<Target>& targets);

// A file, which may exist and is then replaced. Throws like check_new_folder.
void check_new_file(const Target& target);

}  // namespace fettle::cli
