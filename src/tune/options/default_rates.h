// SPDX-License-Identifier: Apache-2.0
// Peak learning rates that methods have where no option names one, from a study
// on two models (docs/recovery.md).
#pragma once

#include <string>
#include <string_view>

#include "tune/options/tune_options.h"

namespace fettle::tune {

// The rate of routers that are trained beside other weights.
inline constexpr double kRouterRateBeside = 1e-4;

// The rate of a method, which must be known; 0 where it has none.
double default_rate(std::string_view method);
// "usaf 0.0005, smt 0.0003": all of them.
const std::string& default_rates_text();

// The peak rate that a method trains with in a run of `options`.
double peak_rate(const TuneOptions& options, std::string_view method);
// By method; routers that are trained beside others are "router".
Json peak_rates(const TuneOptions& options);

}  // namespace fettle::tune
