// SPDX-License-Identifier: Apache-2.0
#include "store/activation_store.h"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <limits>

#include "core/error.h"

using fettle::InternalError;
using fettle::UserError;
using fettle::store::ActivationStore;
using fettle::store::ActivationStoreOptions;

namespace {

ActivationStore store_with_ram(std::int64_t bytes) {
  ActivationStoreOptions options;
  options.ram_bytes = bytes;
  return ActivationStore(options);
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.dtype() == b.dtype() &&
         std::memcmp(a.data_ptr(), b.data_ptr(), a.nbytes()) == 0;
}

}  // namespace

TEST_CASE("every dtype comes back bit for bit, from RAM and from disk") {
  for (const std::int64_t ram : {std::int64_t{1} << 40, std::int64_t{0}}) {
    ActivationStore store = store_with_ram(ram);
    at::Tensor x = at::arange(3000, at::kFloat).reshape({30, 100}) / 7;
    // Bits that a conversion would not keep.
    x[0][0] = std::numeric_limits<float>::quiet_NaN();
    x[0][1] = -0.0f;
    x[0][2] = std::numeric_limits<float>::infinity();
    std::int64_t key = 0;
    for (const auto dtype :
         {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16}) {
      const at::Tensor typed = x.to(dtype);
      store.put({0, key}, typed);
      CHECK(same_bits(store.get({0, key}), typed));
      ++key;
    }
    for (const auto dtype : {at::kLong, at::kInt, at::kByte, at::kBool}) {
      const at::Tensor typed = at::arange(3000, at::kInt).to(dtype);
      store.put({0, key}, typed);
      CHECK(same_bits(store.get({0, key}), typed));
      ++key;
    }
    CHECK((store.scratch_bytes() > 0) == (ram == 0));
  }
}

TEST_CASE("tensors beyond the RAM budget go to disk, the others stay") {
  ActivationStore store = store_with_ram(2 * 4096);
  const at::Tensor x = at::arange(1024, at::kFloat);  // 4096 bytes
  for (std::int64_t m = 0; m < 5; ++m) store.put({1, m}, x + m);
  CHECK(store.ram_bytes() == 2 * 4096);
  CHECK(store.scratch_bytes() == 3 * 4096);
  for (std::int64_t m = 0; m < 5; ++m) {
    CHECK(same_bits(store.get({1, m}), x + m));
  }
}

TEST_CASE("what is taken makes room, in RAM and on disk") {
  ActivationStore store = store_with_ram(4096);
  const at::Tensor x = at::arange(1024, at::kFloat);
  for (std::int64_t layer = 0; layer < 20; ++layer) {
    for (std::int64_t m = 0; m < 3; ++m) store.put({layer, m}, x + layer);
    for (std::int64_t m = 0; m < 3; ++m) {
      CHECK(same_bits(store.take({layer, m}), x + layer));
    }
  }
  CHECK(store.ram_bytes() == 0);
  CHECK(store.scratch_bytes() == 2 * 4096);  // never grew after layer 0
}

TEST_CASE("a key put twice holds the second tensor only") {
  for (const std::int64_t ram : {std::int64_t{1} << 40, std::int64_t{0}}) {
    ActivationStore store = store_with_ram(ram);
    store.put({0, 0}, at::zeros({1024}));
    store.put({0, 0}, at::ones({8, 128}));
    CHECK(same_bits(store.get({0, 0}), at::ones({8, 128})));
    CHECK(store.ram_bytes() + store.scratch_bytes() == 4096);
  }
}

TEST_CASE("a contiguous tensor is kept without a copy, a view is not") {
  ActivationStore store = store_with_ram(1 << 20);
  const at::Tensor whole = at::arange(1024, at::kFloat).reshape({32, 32});
  store.put({0, 0}, whole);
  CHECK(store.get({0, 0}).data_ptr() == whole.data_ptr());

  store.put({0, 1}, whole.slice(0, 0, 2));  // would keep all 32 rows alive
  CHECK(store.get({0, 1}).data_ptr() != whole.data_ptr());
  CHECK(same_bits(store.get({0, 1}), whole.slice(0, 0, 2).clone()));
  CHECK(store.ram_bytes() == 4096 + 2 * 128);

  store.put({0, 2}, whole.t());
  CHECK(same_bits(store.get({0, 2}), whole.t().contiguous()));
  store.put({0, 3}, at::ones({1}).expand({4, 4}));
  CHECK(same_bits(store.get({0, 3}), at::ones({4, 4})));
}

TEST_CASE("a tensor is kept without its graph") {
  ActivationStore store = store_with_ram(1 << 20);
  const at::Tensor leaf = at::ones({4}).requires_grad_(true);
  store.put({0, 0}, leaf * 2);
  CHECK_FALSE(store.get({0, 0}).requires_grad());
}

TEST_CASE("empty tensors and scalars keep their shape") {
  ActivationStore store = store_with_ram(0);
  store.put({0, 0}, at::zeros({0, 16}));
  store.put({0, 1}, at::scalar_tensor(2.5));
  CHECK(store.get({0, 0}).sizes() == at::IntArrayRef({0, 16}));
  CHECK(store.get({0, 1}).dim() == 0);
  CHECK(store.get({0, 1}).item<float>() == 2.5f);
}

TEST_CASE("erase and clear forget; an unknown key is a bug of the caller") {
  ActivationStore store = store_with_ram(4096);
  store.put({0, 0}, at::zeros({1024}));
  store.put({0, 1}, at::zeros({1024}));
  store.erase({0, 0});
  store.erase({7, 7});
  CHECK(store.ram_bytes() == 0);
  CHECK_THROWS_AS(store.get({0, 0}), InternalError);
  store.clear();
  CHECK(store.scratch_bytes() == 0);
  CHECK_THROWS_AS(store.take({0, 1}), InternalError);
  CHECK_THROWS_AS(store.put({0, 0}, at::Tensor()), InternalError);
}

TEST_CASE("a scratch folder that can't be written surfaces at put") {
  ActivationStoreOptions options;
  options.ram_bytes = 0;
  options.scratch = "/proc/nowhere";
  ActivationStore store(options);
  CHECK_THROWS_AS(store.put({0, 0}, at::zeros({4})), UserError);
  CHECK_THROWS_AS(store.get({0, 0}), InternalError);
}
