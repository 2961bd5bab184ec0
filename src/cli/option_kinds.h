// SPDX-License-Identifier: Apache-2.0
// What an option's value names: shown by --help, completed by shells, and
// followed by a recipe, which does a stage anew when a file that it reads has
// changed.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::cli {

inline constexpr const char* kFolder = "FOLDER";         // to read
inline constexpr const char* kModel = "MODEL_FOLDER";    // to read, as MODEL
inline constexpr const char* kFile = "FILE";             // to read
inline constexpr const char* kData = "DATA";             // files with weights
inline constexpr const char* kNewFolder = "NEW_FOLDER";  // to write
inline constexpr const char* kNewFile = "NEW_FILE";      // to write
inline constexpr const char* kSize = "SIZE";             // of memory

// Gives the options of `command` that name files or sizes their kind. Those
// that name a model's folder take what MODEL takes, see model_option.h.
void mark_paths(CLI::App& app, std::string_view command);

// The kind, or an empty text where the value names no file.
std::string path_kind(const CLI::Option& option);
// Whether values of `kind` are folders, be they there or not.
bool is_folder(std::string_view kind);

// The values that an option may have, or none where any may be.
std::vector<std::string> choices_of(const CLI::Option& option);

}  // namespace fettle::cli
