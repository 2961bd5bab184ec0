// SPDX-License-Identifier: Apache-2.0
// The state of an unfinished run at all ranks: only rank 0 has its folder.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "artifact/run_state.h"
#include "ranks/group.h"

namespace fettle::artifact {

// Saves a state whose tensors lie at several ranks: one that a rank doesn't
// hold is of the meta device there, or not among its tensors, and one that
// rank 0 doesn't hold is held by exactly one other. Rank 0 writes the state
// under `folder`, and has these tensors sent one by one. All ranks call it.
void save_shared_state(
    ranks::Group& group,
    const std::filesystem::path& folder,
    const RunState& state);

// The newest state under rank 0's `folder`, as load_newest_state() gives it, or
// none. Tensors are read and sent one by one, and each rank has those that it
// keeps.
std::optional<RunState> load_shared_state(
    ranks::Group& group,
    const std::filesystem::path& folder,
    std::string_view stage,
    const std::function<bool(const std::string& name)>& keeps);

// Copies rank 0's file to the paths that the others name.
void share_file(ranks::Group& group, const std::filesystem::path& path);

}  // namespace fettle::artifact
