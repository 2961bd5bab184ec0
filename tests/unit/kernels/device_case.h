// SPDX-License-Identifier: Apache-2.0
// One test body over device × dtype × tolerance. The truth of a case is the
// ATen composition in float64 on the CPU, on inputs that the dtype holds
// exactly, so a difference is the kernel's own.
#pragma once

#include <string>
#include <vector>

namespace fettle::kernels::test {

struct DeviceCase {
  at::Device device;
  at::ScalarType dtype;
  // Bound on |difference| relative to |truth| plus its row's root mean square:
  // a value is rounded relative to itself, a sum relative to its terms.
  double tolerance;
  std::string name;
};

// The CPU's cases, and those of the GPU where its plug-in can be opened.
std::vector<DeviceCase> cpu_cases();
std::vector<DeviceCase> gpu_cases();

// Seeded normal values, rounded to the dtype, kept as float32 on the CPU.
at::Tensor values(
    at::IntArrayRef sizes, std::int64_t seed, const DeviceCase& where);

// The tensor on the case's device in its dtype.
at::Tensor on(const DeviceCase& where, const at::Tensor& tensor);

// Checks that each value of `got` is that of `truth` within the tolerance, or
// within the smallest number that the dtype holds.
void check_close(
    const at::Tensor& got, const at::Tensor& truth, const DeviceCase& where);

// Whether all bits are equal.
bool same_bits(const at::Tensor& a, const at::Tensor& b);

}  // namespace fettle::kernels::test
