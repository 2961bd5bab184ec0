// SPDX-License-Identifier: Apache-2.0
// SMT: the blocks of the experts' and the attention's matrices that the
// gradients of a warm-up pull at most.
#pragma once

#include "tune/method/method.h"

namespace fettle::tune {

extern const Method kSmtMethod;

}  // namespace fettle::tune
