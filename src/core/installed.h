// SPDX-License-Identifier: Apache-2.0
// Where the program's own files are. A build folder holds everything beside the
// program; an installation has PREFIX/bin, PREFIX/lib/fettle for plug-ins and
// PREFIX/share/fettle for scripts.
#pragma once

#include <filesystem>

namespace fettle {

// The folder of the running program. Empty where /proc is missing.
std::filesystem::path program_folder();

// PREFIX/lib/fettle of a program in PREFIX/bin, whether it exists or not.
std::filesystem::path installed_libraries(const std::filesystem::path& program);

// The script `name` of an installation, or, where there is none, the one in
// `source_folder`, the checkout that the program was built from.
std::filesystem::path find_script(
    const std::filesystem::path& program,
    const std::filesystem::path& source_folder,
    const std::string& name);

}  // namespace fettle
