// SPDX-License-Identifier: Apache-2.0
#include "kernels/device_backend.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "kernels/dispatch.h"
#include "kernels/no_gpu/stubs.h"
#include "kernels/swiglu.h"

namespace fettle::kernels {
namespace {

using Catch::Matchers::Contains;

const DeviceSpec kSecondCard{.gpu = true, .index = 1};

// A plug-in of plugins/fake_plugin.cpp.
std::filesystem::path fake(const std::string& name) {
  return std::filesystem::path(FETTLE_FAKE_PLUGINS) / (name + ".so");
}

}  // namespace

TEST_CASE("the CPU is open without a plug-in") {
  CHECK(open_device({}, "/nowhere") == at::Device(at::kCPU));
  CHECK(&gpu_launchers() == &no_gpu_launchers());
}

TEST_CASE("a GPU without a plug-in is refused in plain words") {
  CHECK_THROWS_WITH(
      open_device(kSecondCard, "/nowhere"),
      Contains("[device] cuda:1: this build has no GPU plug-in: build with "
               "nvcc or hipcc"));
}

TEST_CASE("a plug-in that does not fit is refused with the reason") {
  CHECK_THROWS_WITH(
      open_device(kSecondCard, fake("fake_old")),
      Contains("expected a plug-in of version"));
  CHECK_THROWS_WITH(
      open_device(kSecondCard, fake("fake_refusing")),
      Contains("built with a libtorch that has no device half"));
}

TEST_CASE("absent cards are named") {
  CHECK_THROWS_WITH(
      open_device(kSecondCard, fake("fake_no_card")),
      Contains("no CUDA device found (no card in the slot); use --device cpu"));
  CHECK_THROWS_WITH(
      open_device(kSecondCard, fake("fake_one_card")),
      Contains("cuda:1: expected one of cuda:0 to cuda:0: this machine has 1 "
               "CUDA device(s)"));
}

TEST_CASE("after a refusal no plug-in is in use") {
  CHECK_THROWS_AS(open_device(kSecondCard, fake("fake_no_card")), UserError);
  CHECK(&gpu_launchers() == &no_gpu_launchers());
}

TEST_CASE("every stub refuses") {
  const Launchers& stubs = no_gpu_launchers();
  CHECK_THAT(stubs.rms_norm({}, nullptr), Contains("no GPU backend"));
  CHECK_THAT(stubs.rms_norm_backward({}, nullptr), Contains("no GPU backend"));
  CHECK_THAT(stubs.swiglu({}, nullptr), Contains("no GPU backend"));
  CHECK_THAT(stubs.swiglu_backward({}, nullptr), Contains("no GPU backend"));
  CHECK_THAT(stubs.gather_rows({}, nullptr), Contains("no GPU backend"));
  CHECK_THAT(stubs.combine({}, nullptr), Contains("no GPU backend"));
  CHECK_THAT(stubs.combine_backward({}, nullptr), Contains("no GPU backend"));
  CHECK_THAT(stubs.cross_entropy({}, nullptr), Contains("no GPU backend"));
  CHECK_THAT(stubs.rope({}, nullptr), Contains("no GPU backend"));
}

TEST_CASE("an op on a device without kernels names itself") {
  const at::Tensor elsewhere = at::empty({2, 4}, at::kMeta);
  CHECK_THROWS_WITH(
      swiglu(elsewhere),
      Contains("[kernels] swiglu: no GPU backend: build with nvcc or hipcc"));
}

}  // namespace fettle::kernels
