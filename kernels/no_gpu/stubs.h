// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/gpu/launchers.h"

namespace fettle::kernels {

// The table used while no plug-in is open: every launcher refuses.
const Launchers& no_gpu_launchers();

}  // namespace fettle::kernels
