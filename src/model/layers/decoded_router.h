// SPDX-License-Identifier: Apache-2.0
// route() of router.h for decoded tokens on the CPU, in one pass over a row's
// logits: a token has few numbers here, and each of libtorch's calls costs more
// than they do.
#pragma once

#include "model/layers/router.h"

namespace fettle::model {

// Whether route_decoded serves: no gradient, no noise, no groups of experts, no
// condensers.
bool routes_plainly(
    const RouterConfig& config,
    const RouterTensors& router,
    const at::Tensor& logits);

// Fills in all but the logits [N, E] fp32, which have the router's bias. Of
// experts with one score, the first are chosen.
void route_decoded(
    const RouterConfig& config,
    std::int64_t top_k,
    const RouterTensors& router,
    Routing& routing);

}  // namespace fettle::model
