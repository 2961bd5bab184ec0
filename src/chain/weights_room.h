// SPDX-License-Identifier: Apache-2.0
// From what a machine has to what the weights may take of it: the one number
// that a search for the best plan is bounded by.
#pragma once

#include <cstdint>

#include "chain/fit_request.h"
#include "chain/fit_source.h"

namespace fettle::chain {

// Most bytes that all tensors of the folder may take, so that a quantized model
// made of `source` keeps to all bounds of `request`, which settled() gave. A
// layer is taken to be as wide as it was while it is on its way. Throws
// UserError where there are no bounds.
std::int64_t weights_room(const FitSource& source, const FitRequest& request);

}  // namespace fettle::chain
