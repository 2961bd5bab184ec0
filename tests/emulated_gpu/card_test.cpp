// SPDX-License-Identifier: Apache-2.0
// That the emulated card finds out what it is there to find out.
#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <functional>

#include "kernels/device_backend.h"
#include "kernels/rms_norm.h"

namespace fettle::kernels {
namespace {

using Catch::Contains;

at::Device card() { return open_device({.gpu = true}, FETTLE_EMULATED_CARD); }

c10::impl::VirtualGuardImpl guard() {
  card();
  return c10::impl::VirtualGuardImpl(c10::kCUDA);
}

c10::Stream another_stream() {
  return guard().getStreamFromGlobalPool(card(), false);
}

// The signal that ends a process which does this, or 0.
int signal_of(const std::function<void()>& work) {
  card();
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    std::signal(SIGABRT, SIG_DFL);
    (void)std::freopen("/dev/null", "w", stderr);
    work();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

at::Tensor ramp(std::int64_t n) { return at::arange(n, at::kFloat); }

TEST_CASE("tensors go to the card and back, and compute there") {
  const at::Tensor host = ramp(12).view({3, 4});
  const at::Tensor x = host.to(card());
  REQUIRE(x.is_cuda());
  const at::Tensor y = at::mm(x, x.t()).narrow(0, 1, 2).clone();
  REQUIRE(y.is_cuda());
  const at::Tensor truth = at::mm(host, host.t()).narrow(0, 1, 2);
  CHECK(at::equal(y.cpu(), truth));
  CHECK(y.sum().item<double>() == truth.sum().item<double>());
  // In place, through a view, and into something that grows.
  x.select(1, 0).add_(1);
  CHECK(at::equal(x.cpu().select(1, 0), host.select(1, 0) + 1));
  at::Tensor out = at::empty({0}, x.options());
  at::arange_out(out, 5);
  CHECK(at::equal(out.cpu(), ramp(5)));
}

TEST_CASE("what is not written is not a number") {
  const at::Tensor x = at::empty({7}, at::TensorOptions(card()));
  CHECK(at::isnan(x).all().item<bool>());
}

TEST_CASE("the host cannot touch the card's memory") {
  const at::Tensor x = at::zeros({4}, at::TensorOptions(card()));
  CHECK(signal_of([&] { x.data_ptr<float>()[0] = 1; }) == SIGSEGV);
  volatile float seen = 0;
  CHECK(signal_of([&] { seen = x.data_ptr<float>()[3]; }) == SIGSEGV);
  // Kernels can, and after them the host can no more.
  const at::Tensor y = rms_norm(x.view({1, 4}), x + 1, 1e-6).y;
  CHECK(y.cpu().abs().sum().item<float>() == 0);
  CHECK(signal_of([&] { seen = x.data_ptr<float>()[3]; }) == SIGSEGV);
}

TEST_CASE("tensors of the host and the card don't mix, but for numbers") {
  const at::Tensor x = ramp(3).to(card());
  CHECK_THROWS_WITH(x + ramp(3), Contains("same device"));
  CHECK_THROWS_WITH(at::cat({x, ramp(3)}), Contains("same device"));
  CHECK(at::equal((x + ramp(3).select(0, 1)).cpu(), ramp(3) + 1));
  CHECK(x.index({at::tensor({2})}).item<float>() == 2);
}

TEST_CASE("a pinned copy that is not waited for comes late") {
  const c10::Stream stream = another_stream();
  at::Tensor host = ramp(4).pin_memory();
  REQUIRE(host.is_pinned());
  at::Tensor x;
  {
    const c10::StreamGuard on(stream);
    x = host.to(card(), /*non_blocking=*/true);
  }
  host.fill_(9);  // too early
  stream.synchronize();
  CHECK(at::equal(x.cpu(), at::full({4}, 9.0f)));
  // Memory that isn't pinned is taken at once.
  at::Tensor pageable = ramp(4);
  const at::Tensor y = pageable.to(card(), /*non_blocking=*/true);
  pageable.fill_(9);
  CHECK(at::equal(y.cpu(), ramp(4)));
}

TEST_CASE("a stream that does not wait for another one is found out") {
  const c10::Stream stream = another_stream();
  const auto copied = [&] {
    const c10::StreamGuard on(stream);
    return ramp(4).pin_memory().to(card(), /*non_blocking=*/true);
  };
  CHECK(signal_of([&] { copied() + 1; }) == SIGABRT);
  CHECK(signal_of([&] {
          const at::Tensor x = copied();
          guard().recordDataPtrOnStream(
              x.storage().data_ptr(), guard().getDefaultStream(card()));
          c10::Event event(c10::kCUDA);
          event.record(stream);
          event.block(guard().getDefaultStream(card()));
          x + 1;
        }) == 0);
  CHECK(signal_of([&] {
          const at::Tensor x = copied();
          guard().recordDataPtrOnStream(
              x.storage().data_ptr(), guard().getDefaultStream(card()));
          stream.synchronize();
          x + 1;
        }) == 0);
}

TEST_CASE("memory given back under another stream's work is found out") {
  const c10::Stream stream = another_stream();
  const auto used = [&](bool recorded, bool waited) {
    at::Tensor x;
    {
      const c10::StreamGuard on(stream);
      x = at::zeros({4}, at::TensorOptions(card()));
    }
    stream.synchronize();
    if (recorded) {
      guard().recordDataPtrOnStream(
          x.storage().data_ptr(), guard().getDefaultStream(card()));
    }
    const at::Tensor y = x + 1;
    if (waited) y.cpu();
    x.reset();
  };
  CHECK(signal_of([&] { used(false, false); }) == SIGABRT);
  CHECK(signal_of([&] { used(true, false); }) == 0);
  CHECK(signal_of([&] { used(false, true); }) == 0);
}

TEST_CASE("memory is counted, and keeps to the stream it was made for") {
  const at::Device device = card();
  auto* memory = at::getDeviceAllocator(c10::kCUDA);
  const auto reserved = [&] {
    return memory->getDeviceStats(0).reserved_bytes[0].current;
  };
  const auto make = [&](c10::Stream stream, std::int64_t mib) {
    const c10::StreamGuard on(stream);
    at::empty({mib << 20}, at::TensorOptions(device).dtype(at::kByte));
  };
  // In segments, as libtorch does.
  const auto before = reserved();
  const c10::Stream stream = another_stream();
  make(stream, 1);
  make(stream, 1);
  CHECK(reserved() == before + (2 << 20));
  make(another_stream(), 1);
  CHECK(reserved() == before + (4 << 20));
  make(stream, 3);
  make(stream, 5);
  CHECK(reserved() == before + (24 << 20));
  make(stream, 33);
  CHECK(reserved() == before + (58 << 20));
  const auto [free, all] = memory->getMemoryInfo(0);
  CHECK((free <= all && all > 0));
  CHECK_THROWS_AS(
      at::empty(
          {static_cast<std::int64_t>(all) + 1},
          at::TensorOptions(device).dtype(at::kByte)),
      c10::OutOfMemoryError);
}

}  // namespace
}  // namespace fettle::kernels
