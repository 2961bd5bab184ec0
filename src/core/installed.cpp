// SPDX-License-Identifier: Apache-2.0
#include "core/installed.h"

namespace fettle {

std::filesystem::path program_folder() {
  std::error_code unreadable;
  return std::filesystem::read_symlink("/proc/self/exe", unreadable)
      .parent_path();
}

std::filesystem::path installed_libraries(
    const std::filesystem::path& program) {
  return program.parent_path() / "lib" / "fettle";
}

std::filesystem::path find_script(
    const std::filesystem::path& program,
    const std::filesystem::path& source_folder,
    const std::string& name) {
  const auto installed = program.parent_path() / "share" / "fettle" / name;
  std::error_code absent;
  return std::filesystem::is_regular_file(installed, absent)
             ? installed
             : source_folder / name;
}

}  // namespace fettle
