// SPDX-License-Identifier: Apache-2.0
// Kinds of weights that methods train together.
#pragma once

#include <vector>

#include "model/weight_table.h"

namespace fettle::tune {

const std::vector<model::Role>& expert_roles();
// Projections of the attention, whichever a family has.
const std::vector<model::Role>& attention_roles();

}  // namespace fettle::tune
