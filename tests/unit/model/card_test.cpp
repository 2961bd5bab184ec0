// SPDX-License-Identifier: Apache-2.0
// What lies on a card: layers carried to it, activations that stay there.
#include <c10/core/CachingDeviceAllocator.h>

#include <catch2/catch.hpp>

#include "card.h"
#include "model/causal_lm.h"
#include "model/weights/packed_layer.h"
#include "model/weights/weight_view.h"
#include "model_folder.h"
#include "sample_config.h"
#include "store/activation_store.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::card;
using fettle::model::testing::ModelFolder;
using fettle::model::testing::sample;

namespace {

std::int64_t reserved_bytes(at::Device device) {
  return at::getDeviceAllocator(device.type())
      ->getDeviceStats(device.index())
      .reserved_bytes[0]
      .current;
}

}  // namespace

TEST_CASE("layers on a card are those of the CPU, packed or not", "[gpu]") {
  const auto device = card();
  if (!device) return;
  const bool packs = GENERATE(false, true);
  const ModelConfig config = sample("qwen3_moe");
  ModelFolder folder(config);
  for (const WeightId& id : model_weights(config)) {
    if (packs && is_expert_role(id.role) && id.expert != 1) {
      folder.pack(id, {kernels::PackedKind::kInt, 4, false, 4, 0});
    }
  }
  const auto& path = folder.write();
  ModelOptions options;
  CausalLm known(path, options);
  options.device = *device;
  CausalLm model(path, options);
  const std::int64_t layers = config.num_layers();
  for (std::int64_t l = 0; l < layers; ++l) {
    const auto expected = known.acquire(l, -1);
    const auto found = model.acquire(l, (l + 1) % layers);
    for (const WeightId& id : layer_weights(config, l)) {
      const at::Tensor there = weight_view(*found, id);
      REQUIRE(there.device() == *device);
      CHECK(at::equal(there.cpu(), weight_view(*expected, id)));
    }
  }
  CHECK(at::equal(
      model.globals().embed_tokens.cpu(), known.globals().embed_tokens));
}

TEST_CASE("layers that come and go reserve no more than a few", "[gpu]") {
  const auto device = card();
  if (!device) return;
  ModelFolder folder(sample("qwen3_moe"));
  ModelOptions options;
  options.device = *device;
  CausalLm model(folder.write(), options);
  const auto sum = [&](std::int64_t l, std::int64_t next) {
    return model.acquire(l, next)->router.sum().item<float>();
  };
  const float once = sum(0, 1);
  sum(1, 0);
  sum(0, 1);
  const std::int64_t before = reserved_bytes(*device);
  for (int i = 0; i < 40; ++i) {
    sum(1, 0);
    CHECK(sum(0, 1) == once);
  }
  CHECK(reserved_bytes(*device) == before);
}

TEST_CASE("activations stay on the card that made them, or go", "[gpu]") {
  const auto device = card();
  if (!device) return;
  const at::Tensor x = at::arange(1024, at::kFloat);  // 4 KiB
  store::ActivationStoreOptions options;
  options.device_bytes = 2 * 4096;
  options.ram_bytes = 4096;
  store::ActivationStore store(options);
  for (int m = 0; m < 4; ++m) store.put({0, m}, (x + m).to(*device));
  CHECK(store.device_bytes() == 2 * 4096);
  CHECK(store.ram_bytes() == 4096);
  CHECK(store.scratch_bytes() > 0);
  for (int m = 0; m < 4; ++m) {
    const at::Tensor kept = store.get({0, m});
    CHECK(kept.is_cpu() == (m >= 2));
    CHECK(at::equal(kept.cpu(), x + m));
  }
  // What comes from the CPU takes no place on the card, and room is used again.
  store.put({1, 0}, x);
  CHECK(store.device_bytes() == 2 * 4096);
  CHECK(store.take({0, 1}).device() == *device);
  CHECK(store.device_bytes() == 4096);
  // A part keeps no whole alive.
  const at::Tensor whole = at::stack({x, x}).to(*device);
  store.put({0, 1}, whole[1]);
  CHECK(store.device_bytes() == 2 * 4096);
  CHECK(store.get({0, 1}).storage().nbytes() == 4096);
  store.clear();
  CHECK(store.device_bytes() == 0);
}
