// SPDX-License-Identifier: Apache-2.0
#include "tune/options/router_options.h"

namespace fettle::tune {

bool is_router_method(std::string_view method) {
  return method == kRouter || method == kRouterKd;
}

bool trains_router(const TuneOptions& options) {
  if (options.router != "auto") return options.router != "frozen";
  return has_method(options, "usaf") || has_method(options, kRouter) ||
         has_method(options, kRouterKd);
}

std::int64_t frozen_router_steps(const TuneOptions& options) {
  // With nothing else to train there is nothing to wait for.
  return is_router_method(options.method)
             ? 0
             : warmup_steps(options.router_warmup, options.steps);
}

}  // namespace fettle::tune
