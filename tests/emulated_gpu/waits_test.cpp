// SPDX-License-Identifier: Apache-2.0
// How often the host waits for the card in a sweep. A card that is waited for
// stands still meanwhile.
#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "kernels/device_backend.h"
#include "sample_config.h"
#include "sweep/micro_batches.h"
#include "sweep/sweep.h"
#include "unit/model/model_folder.h"

namespace fettle::sweep {
namespace {

using model::testing::ModelFolder;
using model::testing::sample;

constexpr std::int64_t kBatches = 3;

std::int64_t waits_so_far() {
  return at::getDeviceAllocator(at::kCUDA)
      ->getDeviceStats(0)
      .num_sync_all_streams;
}

std::int64_t waits_of(const std::function<void()>& work) {
  const std::int64_t before = waits_so_far();
  work();
  return waits_so_far() - before;
}

TEST_CASE("a sweep waits for the card once a layer and micro-batch") {
  const at::Device card =
      kernels::open_device({.gpu = true}, FETTLE_EMULATED_CARD);
  const model::ModelConfig config = sample("qwen3_moe");
  ModelFolder folder(config);
  for (const model::WeightId& id : model::model_weights(config)) {
    folder[id] = folder[id] * 0.003;  // small enough for finite losses
  }
  model::ModelOptions options;
  options.device = card;
  options.resident_bytes = std::int64_t{1} << 30;
  model::CausalLm model(folder.write(), options);
  const model::Sequence sequence{{1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}, {}};
  const auto batches =
      micro_batches(std::vector(kBatches, sequence), 5, config.vocab_size);
  REQUIRE(std::ssize(batches) == kBatches);
  SweepOptions sweep_options;
  sweep_options.activations.device_bytes = std::int64_t{1} << 30;
  Sweep sweep(model, batches, sweep_options);
  sweep.forward({}, {});  // layers are fetched, and stay
  // Of each the host must know how many tokens its experts have.
  const std::int64_t routings = config.num_layers() * kBatches;
  CHECK(waits_of([&] {
          sweep.forward({}, {.keep_boundaries = true});
        }) == routings);
  at::Tensor nll;
  // Of each it must know which tokens are scored, and then the losses.
  CHECK(waits_of([&] {
          nll = at::cat(sweep.token_nll_with_gradient(1.0));
        }) == 2 * kBatches);
  CHECK(at::isfinite(nll).all().item<bool>());
  CHECK(waits_of([&] { sweep.backward({}); }) == routings);
}

}  // namespace
}  // namespace fettle::sweep
