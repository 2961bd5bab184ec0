// SPDX-License-Identifier: Apache-2.0
// This process as one of several ranks: its environment, how it meets the
// others, and how it ends when one of them is lost.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "ranks/group.h"
#include "ranks/place.h"

namespace fettle::cli {

// None where the process is alone.
std::optional<ranks::Place> process_place();

// The folder of a rank that writes no result, in `scratch`.
std::filesystem::path own_folder(const std::filesystem::path& scratch);

// Waits for the other ranks; alone: a group of one. A rank that is lost later
// ends the process with a line and an exit status of its own.
std::unique_ptr<ranks::Group> open_ranks();

// "fettle: " with the rank where there are several.
std::string message_prefix();

// Has torchrun know why this process ends, where it asks.
void write_error_file(std::string_view message) noexcept;

// The cores that a rank gets without --threads: its share of the machine's.
int threads_of_rank(const ranks::Place& place);

std::string host_name();

}  // namespace fettle::cli
