// SPDX-License-Identifier: Apache-2.0
// ESFT: all weights of the experts that the training data uses most.
#pragma once

#include "tune/method/method.h"

namespace fettle::tune {

extern const Method kEsftMethod;

}  // namespace fettle::tune
