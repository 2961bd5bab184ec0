// SPDX-License-Identifier: Apache-2.0
// Kinds of weights that methods train together.
#pragma once

#include <vector>

#include "model/weight_table.h"

namespace fettle::tune {

const std::vector<model::Role>& expert_roles();
// Projections of the attention, whichever a family has.
const std::vector<model::Role>& attention_roles();
// Whether the backward sweep shows the factors of the gradient (model::MoeTap),
// so that a part needn't have it formed.
bool is_tapped(model::Role role);

}  // namespace fettle::tune
