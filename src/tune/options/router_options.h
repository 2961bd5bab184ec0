// SPDX-License-Identifier: Apache-2.0
// What the options say of the routers, which some methods train beside others.
#pragma once

#include <cstdint>
#include <string_view>

#include "tune/options/tune_options.h"

namespace fettle::tune {

// Names of the methods that train routers and nothing else.
inline constexpr const char* kRouter = "router";
inline constexpr const char* kRouterKd = "router_kd";
bool is_router_method(std::string_view method);

// Whether options.router and the methods chosen have the routers trained.
bool trains_router(const TuneOptions& options);

// Steps before they are.
std::int64_t frozen_router_steps(const TuneOptions& options);

}  // namespace fettle::tune
