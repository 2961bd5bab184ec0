// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace fettle::cli {

// This build and what it found here: version, build type, compiler and
// libtorch, the CPU's instruction set in use, and the GPU plug-in if any.
std::string version_text();

}  // namespace fettle::cli
