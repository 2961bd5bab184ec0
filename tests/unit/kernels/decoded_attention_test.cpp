// SPDX-License-Identifier: Apache-2.0
// The op is compared with the ops that it joins, each of which is tested
// against its own definition.
#include "kernels/decoded_attention.h"

#include <catch2/catch.hpp>
#include <vector>

#include "core/error.h"
#include "device_case.h"
#include "kernels/cached_attention.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"

namespace fettle::kernels {
namespace {

using namespace test;

const DeviceCase kDecodedCase{at::kCPU, at::kFloat, 1e-5, "float32 on the CPU"};

struct DecodedShape {
  std::int64_t heads, kv_heads, size, value_size, rotated;
  bool norms = false, sinks = false;
  std::int64_t window = 0;
};

struct DecodedInputs {
  at::Tensor q, k, v;
  std::vector<GrowingCache> caches;
  DecodedAttentionOptions options;

  DecodedInputs of(std::int64_t b) const {
    const auto row = [&](const at::Tensor& t) {
      return t.defined() ? t.narrow(0, b, 1) : t;
    };
    const GrowingCache& cache = caches[static_cast<std::size_t>(b)];
    DecodedInputs one{
        row(q),
        row(k),
        row(v),
        {{cache.key.clone(), cache.value.clone(), cache.tokens}},
        options};
    one.options.cos = row(options.cos);
    one.options.sin = row(options.sin);
    return one;
  }
  at::Tensor run() const { return decoded_attention(q, k, v, caches, options); }
};

DecodedInputs decoded_inputs(const DecodedShape& s) {
  const std::vector<std::int64_t> held{0, 9, 33};
  DecodedInputs in;
  in.q = values({3, s.heads * s.size}, 1, kDecodedCase);
  in.k = values({3, s.kv_heads * s.size}, 2, kDecodedCase);
  in.v = values({3, s.kv_heads * s.value_size}, 3, kDecodedCase);
  for (const std::int64_t tokens : held) {
    in.caches.push_back(
        {values({tokens + 2, s.kv_heads, s.size}, tokens, kDecodedCase),
         values(
             {tokens + 2, s.kv_heads, s.value_size}, tokens + 1, kDecodedCase),
         tokens});
  }
  in.options.window = s.window;
  in.options.scale = 0.3;
  in.options.eps = 1e-6;
  if (s.sinks) in.options.sinks = values({s.heads}, 4, kDecodedCase);
  if (s.norms) {
    in.options.q_norm = values({s.size}, 5, kDecodedCase);
    in.options.k_norm = values({s.size}, 6, kDecodedCase);
    in.options.offset = 1.0;
  }
  if (s.rotated > 0) {
    const at::Tensor angles = values({3, s.rotated / 2}, 7, kDecodedCase);
    in.options.cos = angles.cos();
    in.options.sin = angles.sin();
  }
  return in;
}

at::Tensor decoded_step_by_step(
    const DecodedInputs& in, const DecodedShape& s) {
  const auto turned = [&](const at::Tensor& t, const at::Tensor& norm) {
    at::Tensor heads = t.view({3, -1, s.size});
    if (norm.defined()) {
      heads =
          rms_norm(heads, norm, in.options.eps, {.offset = in.options.offset})
              .y;
    }
    return s.rotated == 0 ? heads : rope(heads, in.options.cos, in.options.sin);
  };
  const at::Tensor q = turned(in.q, in.options.q_norm);
  const at::Tensor k = turned(in.k, in.options.k_norm);
  std::vector<CachedTokens> caches;
  for (std::int64_t b = 0; b < 3; ++b) {
    const GrowingCache& cache = in.caches[static_cast<std::size_t>(b)];
    const at::Tensor key = cache.key.clone(), value = cache.value.clone();
    key[cache.tokens].copy_(k[b]);
    value[cache.tokens].copy_(in.v[b].view({s.kv_heads, s.value_size}));
    caches.push_back({key, value, cache.tokens + 1});
  }
  return cached_attention(
             q.contiguous(),
             caches,
             {.starts = {0, 1, 2, 3},
              .window = in.options.window,
              .scale = in.options.scale,
              .sinks = in.options.sinks})
      .view({3, -1});
}

void check_decoded(const DecodedShape& s) {
  CAPTURE(s.heads, s.kv_heads, s.size, s.value_size, s.rotated);
  const DecodedInputs in = decoded_inputs(s);
  std::vector<DecodedInputs> alone{in.of(0), in.of(1), in.of(2)};
  const at::Tensor expected = decoded_step_by_step(in, s);
  const at::Tensor all = in.run();
  CHECK(same_bits(all, expected));
  for (std::size_t b = 0; b < alone.size(); ++b) {
    CHECK(same_bits(
        alone[b].run(), all.narrow(0, static_cast<std::int64_t>(b), 1)));
    CHECK(alone[b].caches[0].key.equal(in.caches[b].key));
    CHECK(alone[b].caches[0].value.equal(in.caches[b].value));
  }
}

}  // namespace

TEST_CASE("decoded_attention is what its steps are, alone and together") {
  check_decoded({4, 2, 32, 32, 32, true});
  check_decoded({6, 1, 24, 16, 8, false, true});
  check_decoded({8, 8, 16, 16, 0, true, false, 4});
  check_decoded({5, 1, 40, 8, 40});
}

TEST_CASE("decoded_attention refuses a full cache and sizes that do not fit") {
  DecodedInputs in = decoded_inputs({4, 2, 8, 8, 8});
  in.caches[1].tokens += 2;
  CHECK_THROWS_AS(in.run(), InternalError);
  in.caches[1].tokens -= 2;
  const at::Tensor k = in.k;
  in.k = k.narrow(1, 0, 8);
  CHECK_THROWS_AS(in.run(), InternalError);
  in.k = k;
  in.options.cos = in.options.cos.narrow(1, 0, 2);
  CHECK_THROWS_AS(in.run(), InternalError);
}

}  // namespace fettle::kernels
