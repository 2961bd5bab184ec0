// SPDX-License-Identifier: Apache-2.0
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/runtime.h"

namespace fettle::kernels::gpu {

const char* count_devices(int* count) { return runtime_device_count(count); }

int compute_capability(int device) {
  return runtime_compute_capability(device);
}

}  // namespace fettle::kernels::gpu
