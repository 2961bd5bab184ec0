// SPDX-License-Identifier: Apache-2.0
// What a server counted, as Prometheus reads it.
#pragma once

#include <string>

#include "serve/dispatcher.h"

namespace fettle::serve {

std::string metrics_text(const ServedCounts& counts);

}  // namespace fettle::serve
