// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace fettle::kernels {

// The instruction set that the CPU's loops take here: the best that was
// compiled and that this processor has, by Highway's name, such as "AVX2".
std::string instruction_set();

}  // namespace fettle::kernels
