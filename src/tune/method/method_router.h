// SPDX-License-Identifier: Apache-2.0
// The routers of all layers, alone or beside other methods.
#pragma once

#include "model/layers/router_training.h"
#include "tune/method/method.h"

namespace fettle::tune {

extern const Method kRouterMethod;
// The routers' part, taught by a teacher alone.
extern const Method kRouterKdMethod;

// How the routers behave in a step.
model::RouterTraining router_training(
    const TuneOptions& options, std::int64_t step);

}  // namespace fettle::tune
