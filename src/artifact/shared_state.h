// SPDX-License-Identifier: Apache-2.0
// The state of an unfinished run at all ranks: only rank 0 has its folder.
#pragma once

#include <filesystem>
#include <optional>

#include "artifact/run_state.h"
#include "ranks/group.h"

namespace fettle::artifact {

// Has every rank hold rank 0's state, or none where it has none.
void share_state(ranks::Group& group, std::optional<RunState>& state);

// Copies rank 0's file to the paths that the others name.
void share_file(ranks::Group& group, const std::filesystem::path& path);

}  // namespace fettle::artifact
