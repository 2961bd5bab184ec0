// SPDX-License-Identifier: Apache-2.0
// USAF: the few neurons of all experts that have the largest gradients.
#pragma once

#include "tune/method/method.h"

namespace fettle::tune {

extern const Method kUsafMethod;

}  // namespace fettle::tune
