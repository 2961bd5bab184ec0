// SPDX-License-Identifier: Apache-2.0
#include "device_case.h"

#include <ATen/CPUGeneratorImpl.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <cstring>
#include <iostream>

#include "core/error.h"
#include "kernels/device_backend.h"

namespace fettle::kernels::test {
namespace {

DeviceCase make(at::Device device, at::ScalarType dtype) {
  const double tolerance = dtype == at::kFloat  ? 1e-5
                           : dtype == at::kHalf ? 1e-2
                                                : 4e-2;
  return {
      .device = device,
      .dtype = dtype,
      .tolerance = tolerance,
      .name = device.str() + " " + at::toString(dtype)};
}

}  // namespace

std::vector<DeviceCase> cpu_cases() {
  return {make(at::kCPU, at::kFloat), make(at::kCPU, at::kBFloat16)};
}

std::vector<DeviceCase> gpu_cases() {
  try {
    const at::Device device = open_device({.gpu = true});
    return {
        make(device, at::kFloat),
        make(device, at::kHalf),
        make(device, at::kBFloat16)};
  } catch (const UserError& error) {
    // The test's report takes it along, and tools/test_summary.py counts it.
    std::cout << "skipped: no GPU: " << error.what() << '\n';
    return {};
  }
}

at::Tensor values(
    at::IntArrayRef sizes, std::int64_t seed, const DeviceCase& where) {
  // A generator of its own: at::manual_seed would ask ATen about CUDA.
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(sizes, generator, at::kFloat).to(where.dtype).to(at::kFloat);
}

at::Tensor on(const DeviceCase& where, const at::Tensor& tensor) {
  return tensor.to(where.device, where.dtype);
}

void check_close(
    const at::Tensor& got, const at::Tensor& truth, const DeviceCase& where) {
  INFO(where.name);
  REQUIRE(got.sizes() == truth.sizes());
  const auto wide = [&](const at::Tensor& t) {
    return t.detach().to(at::kCPU, at::kDouble).reshape({-1, t.size(-1)});
  };
  const at::Tensor expected = wide(truth);
  const at::Tensor scale = expected.pow(2).mean(-1, true).sqrt();
  const at::Tensor bound = where.tolerance * (scale + expected.abs());
  const at::Tensor excess = (wide(got) - expected).abs() - bound;
  // Half holds nothing between 0 and 2^-24; the other types reach 1e-38.
  const double least = where.dtype == at::kHalf ? std::ldexp(1.0, -24) : 1e-30;
  INFO("worst excess over the bound " << excess.max().item<double>());
  CHECK(excess.le(least).all().item<bool>());
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.sizes() == y.sizes() && x.dtype() == y.dtype() &&
         std::memcmp(x.data_ptr(), y.data_ptr(), x.nbytes()) == 0;
}

}  // namespace fettle::kernels::test
