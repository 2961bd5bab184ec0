// SPDX-License-Identifier: Apache-2.0
// Full fine-tuning of all weights whose names match a pattern.
#pragma once

#include "tune/method/method.h"

namespace fettle::tune {

extern const Method kFullMethod;

}  // namespace fettle::tune
