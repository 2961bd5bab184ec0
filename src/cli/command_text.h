// SPDX-License-Identifier: Apache-2.0
// A command as one line that a shell takes.
#pragma once

#include <span>
#include <string>

namespace fettle::cli {

// "fettle" and the arguments, quoted where a shell needs it.
std::string command_text(std::span<const std::string> arguments);

}  // namespace fettle::cli
