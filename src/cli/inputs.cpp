// SPDX-License-Identifier: Apache-2.0
#include "cli/inputs.h"

#include <fmt/format.h>

#include <filesystem>

#include "cli/session.h"
#include "core/error.h"

namespace fettle::cli {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_input(
    std::string_view option, const fs::path& path, std::string_view why) {
  throw UserError("cli", path.string(), fmt::format("{} ({})", why, option));
}

}  // namespace

void check_file(std::string_view option, const std::string& path) {
  if (path.empty()) return;
  std::error_code ignored;
  const auto status = fs::status(path, ignored);
  if (!fs::exists(status)) {
    refuse_input(option, path, "there is no such file");
  }
  if (fs::is_directory(status)) {
    refuse_input(option, path, "is a folder; name a file");
  }
}

void check_folder(std::string_view option, const std::string& path) {
  if (path.empty()) return;
  std::error_code ignored;
  const auto status = fs::status(path, ignored);
  if (!fs::exists(status)) {
    refuse_input(option, path, "there is no such folder");
  }
  if (!fs::is_directory(status)) {
    refuse_input(option, path, "is a file; name a folder");
  }
}

void check_data(
    std::string_view option, const std::vector<std::string>& arguments) {
  for (const auto& file : data_files(arguments)) {
    std::error_code ignored;
    if (fs::exists(file.path, ignored)) continue;
    refuse_input(option, file.path, "there is no such file");
  }
}

}  // namespace fettle::cli
