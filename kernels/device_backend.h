// SPDX-License-Identifier: Apache-2.0
// Opening the device a command runs on. The GPU half of libtorch comes with the
// plug-in, and ATen looks for it once: open the device before anything else
// asks ATen about CUDA.
#pragma once

#include "kernels/gpu/launchers.h"

namespace fettle::kernels {

// The launchers of the plug-in that is open, or those that refuse.
const Launchers& gpu_launchers();

}  // namespace fettle::kernels
