// SPDX-License-Identifier: Apache-2.0
// The state of an unfinished run at all ranks: only rank 0 has its folder.
#pragma once

#include <optional>

#include "artifact/run_state.h"
#include "ranks/group.h"

namespace fettle::artifact {

// Has every rank hold rank 0's state, or none where it has none.
void share_state(ranks::Group& group, std::optional<RunState>& state);

}  // namespace fettle::artifact
