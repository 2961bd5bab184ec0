// SPDX-License-Identifier: Apache-2.0
// Condensers: biased routers and experts that work on every token, alone or
// beside methods that train weights.
#pragma once

#include "tune/method/method.h"

namespace fettle::tune {

extern const Method kCondenserMethod;

}  // namespace fettle::tune
