// SPDX-License-Identifier: Apache-2.0
// The routers of all layers, alone or beside other methods.
#pragma once

#include "model/router_training.h"
#include "tune/method/method.h"

namespace fettle::tune {

extern const Method kRouterMethod;
// The same part, taught by a teacher alone.
extern const Method kRouterKdMethod;

// Whether options.router and the methods chosen have the routers trained.
bool trains_router(const TuneOptions& options);

// Steps before they are.
std::int64_t frozen_router_steps(const TuneOptions& options);

// How the routers behave in a step.
model::RouterTraining router_training(
    const TuneOptions& options, std::int64_t step);

}  // namespace fettle::tune
