// SPDX-License-Identifier: Apache-2.0
#include "model/layers/kv_cache.h"

#include <catch2/catch.hpp>

using namespace fettle::model;

TEST_CASE("A cache with a reserve is made once") {
  KvCache cache;
  cache.reserve = 5;
  const at::Tensor key = at::arange(30, at::kFloat).view({5, 2, 3});
  const at::Tensor value = -at::arange(10, at::kFloat).view({5, 2, 1});
  cache.append(key.narrow(0, 0, 3), value.narrow(0, 0, 3));
  const void* const place = cache.key.data_ptr();
  cache.append(key.narrow(0, 3, 1), value.narrow(0, 3, 1));
  cache.append(key.narrow(0, 4, 1), value.narrow(0, 4, 1));
  CHECK(cache.key.data_ptr() == place);
  CHECK(cache.key.size(0) == 5);
  CHECK(cache.length == 5);
  CHECK(cache.key.equal(key));
  CHECK(cache.value.equal(value));
}

TEST_CASE("A cache grows past what was reserved") {
  KvCache cache;
  cache.reserve = GENERATE(0, 2);
  const at::Tensor key = at::arange(24, at::kFloat).view({4, 2, 3});
  for (std::int64_t t = 0; t < 4; ++t) {
    cache.append(key.narrow(0, t, 1), key.narrow(0, t, 1));
  }
  CHECK(cache.key.narrow(0, 0, 4).equal(key));
  CHECK(cache.value.narrow(0, 0, 4).equal(key));
}
