// SPDX-License-Identifier: Apache-2.0
// The routers of all layers, alone or beside other methods.
#pragma once

#include "tune/method.h"

namespace fettle::tune {

extern const Method kRouterMethod;
// The same part, taught by a teacher alone.
extern const Method kRouterKdMethod;

// Whether options.router and the methods chosen have the routers trained.
bool trains_router(const TuneOptions& options);

}  // namespace fettle::tune
