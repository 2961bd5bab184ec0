// SPDX-License-Identifier: Apache-2.0
// Every value of every stage is judged before the first stage runs.
#pragma once

#include <vector>

#include "cli/chain.h"
#include "cli/run_record.h"

namespace fettle::cli {

// Throws UserError where the work folder is not there and can't be made.
void check_work_folder(const Recipe& recipe);

// Throws UserError where the work folder holds what is not the recipe's, and
// where a step that is yet to run has a value that it would refuse, as far as
// the model that the recipe begins with shows that.
void check_chain(
    const Recipe& recipe,
    const std::vector<ChainStep>& steps,
    const RunRecord& record);

}  // namespace fettle::cli
