// SPDX-License-Identifier: Apache-2.0
#include "kernels/packed_mlps.h"

#include <catch2/catch.hpp>
#include <vector>

#include "core/error.h"
#include "device_case.h"
#include "kernels/rounded_products.h"
#include "kernels/swiglu.h"
#include "packed_case.h"
#include "trit_reference.h"

namespace fettle::kernels {
namespace {

using namespace test;

const DeviceCase kMlpCase{at::kCPU, at::kFloat, 1e-5, "cpu"};

struct MlpMatrices {
  PackedMatrix gate, up, down;
};

MlpMatrices mlp_matrices(
    const PackedCase& what, std::int64_t hidden, std::int64_t width) {
  PackedCase in = what, out = what;
  in.rows = out.cols = width;
  in.cols = out.rows = hidden;
  MlpMatrices all{packed_case(in), packed_case(in), packed_case(out)};
  all.up.scales = all.up.scales * 0.5;
  return all;
}

std::vector<MlpMatrices> mlp_kinds(std::int64_t hidden, std::int64_t width) {
  std::vector<MlpMatrices> all;
  for (const std::int64_t bits : {2, 3, 4, 8}) {
    all.push_back(mlp_matrices({.bits = bits, .group = 64}, hidden, width));
  }
  all.push_back(mlp_matrices({.bits = 4, .group = 128}, hidden, width));
  all.push_back(
      mlp_matrices({.bits = 4, .group = 32, .zeros = true}, hidden, width));
  all.push_back(mlp_matrices(
      {.kind = PackedKind::kTernary, .group = 128}, hidden, width));
  return all;
}

at::Tensor taken_rows(
    const at::Tensor& x, const std::vector<std::int64_t>& tokens) {
  return x.index_select(0, at::tensor(tokens, at::kLong));
}

// The same by the single ops.
at::Tensor mlp_step_by_step(
    const MlpMatrices& m,
    const at::Tensor& x,
    const PackedMlpsOptions& options) {
  const auto product = [&](const PackedMatrix& w, const at::Tensor& in) {
    at::Tensor out = at::empty({in.size(0), w.rows});
    const PackedProduct one{&w, in, out};
    options.rounds&& has_rounded_product(w, in) ? rounded_products({&one, 1})
                                                : packed_products({&one, 1});
    return out;
  };
  const at::Tensor up = product(m.up, x);
  const at::Tensor gate_up = inputs_of(options.activation) == 2
                                 ? at::cat({product(m.gate, x), up}, 1)
                                 : up;
  return product(m.down, swiglu(gate_up, options.activation));
}

PackedMlp mlp_of(
    const MlpMatrices& m, const std::vector<std::int64_t>& tokens) {
  return {&m.gate, &m.up, &m.down, tokens};
}

}  // namespace

TEST_CASE("packed MLPs are their definition in float64") {
  const at::Tensor x = values({3, 256}, 4, kMlpCase);
  for (const MlpMatrices& m : mlp_kinds(256, 128)) {
    CAPTURE(describe(m.up));
    const std::vector<std::int64_t> tokens{0, 2};
    const PackedMlp one = mlp_of(m, tokens);
    const at::Tensor seen = taken_rows(x, tokens).to(at::kDouble);
    const at::Tensor h = at::silu(seen.mm(plain_weights(m.gate).t())) *
                         seen.mm(plain_weights(m.up).t());
    check_close(
        packed_mlps(x, {&one, 1}, {}),
        h.mm(plain_weights(m.down).t()),
        kMlpCase);
  }
}

TEST_CASE("packed MLPs have the bits of their steps, alone and together") {
  const at::Tensor x = values({5, 192}, 7, kMlpCase);
  const std::vector<MlpMatrices> all = mlp_kinds(192, 70);
  const std::vector<std::vector<std::int64_t>> tokens{
      {3}, {0, 1, 2, 3, 4}, {}, {1, 4}, {2}, {0, 3, 4}, {4}};
  REQUIRE(all.size() == tokens.size());
  for (const bool rounds : {false, true}) {
    for (const Activation activation :
         {Activation::kSilu, Activation::kClampedSwiglu, Activation::kRelu2}) {
      const PackedMlpsOptions options{activation, rounds};
      std::vector<PackedMlp> mlps;
      std::vector<at::Tensor> expected;
      for (std::size_t i = 0; i < all.size(); ++i) {
        mlps.push_back(mlp_of(all[i], tokens[i]));
        if (activation == Activation::kRelu2) mlps.back().gate = nullptr;
        expected.push_back(
            mlp_step_by_step(all[i], taken_rows(x, tokens[i]), options));
      }
      CHECK(same_bits(packed_mlps(x, mlps, options), at::cat(expected)));
    }
  }
}

TEST_CASE("a packed MLP without neurons gives zeros") {
  const std::vector<std::int64_t> tokens{1, 0};
  const PackedMlp none{nullptr, nullptr, nullptr, tokens};
  CHECK(packed_mlps(at::ones({2, 8}), {&none, 1}, {}).equal(at::zeros({2, 8})));
  CHECK(packed_mlps(at::ones({2, 8}), {}, {}).numel() == 0);
}

TEST_CASE("packed MLPs refuse what does not fit, and tell of damage") {
  const MlpMatrices m = mlp_matrices({.bits = 4, .group = 32}, 64, 32);
  const std::vector<std::int64_t> tokens{0}, outside{1};
  const at::Tensor x = at::ones({1, 64});
  const auto refused = [&](const PackedMlp& mlp, const at::Tensor& in) {
    CHECK_THROWS_AS(packed_mlps(in, {&mlp, 1}, {}), InternalError);
  };
  refused(mlp_of(m, outside), x);
  refused(mlp_of(m, tokens), at::ones({1, 32}));
  refused({nullptr, &m.up, &m.down, tokens}, x);
  refused({&m.gate, &m.up, nullptr, tokens}, x);
  refused({&m.gate, &m.up, &m.up, tokens}, x);
  refused(mlp_of(m, tokens), x.to(at::kDouble));
  const at::Tensor trits = seeded_trits(32, 64, {0.8, 0.1}, 3);
  PackedMatrix coded = loaded_trits(
      stored_trits(encode_trits(PackedKind::kTernaryWords, trits), 64));
  coded.codes = at::full_like(coded.codes, 255);
  const PackedMlp damaged{&m.gate, &coded, &m.down, tokens};
  CHECK_THROWS_AS(packed_mlps(x, {&damaged, 1}, {}), UserError);
}

}  // namespace fettle::kernels
