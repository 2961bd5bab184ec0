// SPDX-License-Identifier: Apache-2.0
#include "kernels/cached_attention.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

const DeviceCase kCacheCase{at::kCPU, at::kFloat, 1e-5, "float32 on the CPU"};

struct CacheShape {
  std::int64_t heads, kv_heads, key_size, value_size, window;
  bool sinks;
};

// Sequences of these lengths, of which the last so many tokens ask.
const std::vector<std::int64_t> kLengths{1, 40, 17, 90};
const std::vector<std::int64_t> kAsking{1, 1, 5, 3};

// The definition, with the whole matrix of scores.
at::Tensor by_definition(
    const at::Tensor& q,
    const CachedTokens& cache,
    const CachedAttentionOptions& options) {
  const auto heads = [&](const at::Tensor& x) {
    return x.to(at::kDouble)
        .transpose(0, 1)
        .repeat_interleave(q.size(1) / x.size(1), 0);
  };
  const std::int64_t length = cache.key.size(0), asking = q.size(0);
  const at::Tensor index = at::arange(length);
  const at::Tensor distance =
      index.narrow(0, length - asking, asking).unsqueeze(1) - index;
  at::Tensor hidden = distance.lt(0);
  if (options.window > 0) hidden.logical_or_(distance.ge(options.window));
  at::Tensor scores =
      (at::bmm(heads(q), heads(cache.key).transpose(1, 2)) * options.scale)
          .masked_fill(hidden, -std::numeric_limits<double>::infinity());
  if (options.sinks.defined()) {
    scores = at::cat(
        {scores,
         options.sinks.to(at::kDouble)
             .view({-1, 1, 1})
             .expand({q.size(1), asking, 1})},
        2);
  }
  const at::Tensor shares = scores.softmax(-1).narrow(2, 0, length);
  return at::bmm(shares, heads(cache.value)).transpose(0, 1).to(at::kFloat);
}

void check_shape(const CacheShape& shape) {
  CAPTURE(shape.heads, shape.kv_heads, shape.key_size, shape.value_size);
  CAPTURE(shape.window, shape.sinks);
  CachedAttentionOptions options{
      .starts = {0},
      .window = shape.window,
      .scale = 1 / std::sqrt(static_cast<double>(shape.key_size))};
  if (shape.sinks) options.sinks = values({shape.heads}, 9, kCacheCase);
  std::vector<CachedTokens> caches;
  for (std::size_t b = 0; b < kLengths.size(); ++b) {
    options.starts.push_back(options.starts.back() + kAsking[b]);
    caches.push_back(
        {values({kLengths[b], shape.kv_heads, shape.key_size}, b, kCacheCase),
         values(
             {kLengths[b], shape.kv_heads, shape.value_size},
             20 + b,
             kCacheCase),
         kLengths[b]});
  }
  const at::Tensor q = values(
      {options.starts.back(), shape.heads, shape.key_size}, 5, kCacheCase);
  const at::Tensor all = cached_attention(q, caches, options);
  for (std::size_t b = 0; b < caches.size(); ++b) {
    const auto rows = [&](const at::Tensor& x) {
      return x.narrow(0, options.starts[b], kAsking[b]);
    };
    CHECK(at::allclose(
        rows(all), by_definition(rows(q), caches[b], options), 1e-5, 1e-5));
    // Alone, a sequence has the same bits.
    CachedAttentionOptions alone = options;
    alone.starts = {0, kAsking[b]};
    CHECK(cached_attention(rows(q), {&caches[b], 1}, alone).equal(rows(all)));
  }
}

}  // namespace

TEST_CASE("cached_attention is attention to all that is cached") {
  check_shape({4, 2, 32, 32, 0, false});
  check_shape({1, 1, 3, 5, 0, false});
  check_shape({7, 1, 24, 16, 0, true});
  check_shape({6, 2, 16, 40, 4, false});
  check_shape({8, 8, 8, 8, 30, true});
}

TEST_CASE("cached_attention takes no more queries than tokens") {
  const at::Tensor q = at::ones({2, 1, 4});
  const CachedTokens cache{at::ones({2, 1, 4}), at::ones({2, 1, 4}), 1};
  CHECK_THROWS_AS(
      cached_attention(q, {&cache, 1}, {.starts = {0, 2}}), InternalError);
  CHECK_THROWS_AS(
      cached_attention(q, {&cache, 1}, {.starts = {0, 1, 2}}), InternalError);
  const CachedTokens short_one{at::ones({2, 1, 4}), at::ones({2, 1, 4}), 3};
  CHECK_THROWS_AS(
      cached_attention(q, {&short_one, 1}, {.starts = {0, 2}}), InternalError);
}

TEST_CASE("cached_attention does not see behind the tokens that there are") {
  const at::Tensor q = at::ones({1, 2, 4});
  at::Tensor key = values({5, 2, 4}, 1, kCacheCase);
  const CachedTokens whole{key.clone(), key.clone(), 3};
  key.narrow(0, 3, 2).fill_(NAN);
  const CachedTokens rest{key, key, 3};
  const CachedAttentionOptions options{.starts = {0, 1}};
  CHECK(cached_attention(q, {&rest, 1}, options)
            .equal(cached_attention(q, {&whole, 1}, options)));
}

}  // namespace fettle::kernels
