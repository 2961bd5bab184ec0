// SPDX-License-Identifier: Apache-2.0
// Whether the files that options name are there, judged before any work.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fettle::cli {

// Throw UserError naming the option when there is no such file or folder. An
// empty name means an option that was not given.
void check_file(std::string_view option, const std::string& path);
void check_folder(std::string_view option, const std::string& path);

// Arguments of --data or another option that names data files, with weights.
// Throws as data_files and check_file do.
void check_data(
    std::string_view option, const std::vector<std::string>& arguments);

}  // namespace fettle::cli
