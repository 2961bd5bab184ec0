// SPDX-License-Identifier: Apache-2.0
#include "quant/layer_quantizer.h"

#include <catch2/catch.hpp>
#include <limits>

#include "calibration.h"
#include "core/error.h"
#include "kernels/gptq.h"
#include "layer_reference.h"

namespace fettle::quant {
namespace {

using namespace testing;
using Catch::Matchers::Contains;
using model::Role;
using model::WeightId;

const WeightId kGate{Role::kExpertGate, 0, 1};
const WeightId kDown{Role::kExpertDown, 0, 1};
const WeightId kQuery{Role::kQProj, 0};

// hidden 40, so that every matrix but the experts' down has 40 columns; these
// have `width`.
TinyModelOptions forty_wide(std::int64_t width = 24) {
  TinyModelOptions options;
  options.changes = {
      {"hidden_size", 40},
      {"num_hidden_layers", 1},
      {"num_experts", 2},
      {"moe_intermediate_size", width}};
  return options;
}

Hessian moments_of(std::int64_t tokens, std::int64_t cols, int seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  // Columns that depend on each other, and of unlike sizes.
  const at::Tensor mix = at::randn({cols, cols}, generator, at::kFloat) *
                         at::linspace(0.1, 1, cols, at::kFloat);
  const at::Tensor x =
      at::mm(at::randn({tokens, cols}, generator, at::kFloat), mix);
  return {at::mm(x.t(), x), tokens};
}

struct Quantizing {
  explicit Quantizing(const TinyModelOptions& model = forty_wide())
      : tiny(model), reader(tiny.path()) {}

  QuantizedWeight run(
      const WeightId& id, const std::string& scheme, const Hessian* hessian) {
    return LayerQuantizer(reader, options, of_layer)
        .quantize({{id, parse_scheme(scheme)}}, hessian)
        .front();
  }
  at::Tensor weight(const WeightId& id) const {
    return reader.read(id).to(at::kFloat).contiguous();
  }

  TinyModel tiny;
  model::ModelReader reader;
  GptqOptions options;
  Hessian of_layer;
};

at::Tensor values_of(const kernels::PackedMatrix& matrix) {
  at::Tensor values = at::empty({matrix.rows, matrix.cols}, at::kFloat);
  kernels::unpack_rows(matrix, 0, values);
  return values;
}

// The upper factor of the damped inverse, by forming the inverse.
at::Tensor factor_of(const at::Tensor& moments, double damping) {
  const at::Tensor wide = moments.to(at::kDouble);
  const double shift = damping * wide.diagonal().mean().item<double>();
  const at::Tensor damped = wide + shift * at::eye(wide.size(0), at::kDouble);
  return at::linalg_cholesky(at::linalg_inv(damped))
      .t()
      .to(at::kFloat)
      .contiguous();
}

// Values that differ: a weight between two levels may fall to either, and its
// row behind it with it.
double share_differing(const at::Tensor& a, const at::Tensor& b) {
  return a.ne(b).to(at::kDouble).mean().item<double>();
}

TEST_CASE("gptq is led by the damped moments, in the order asked for") {
  Quantizing q;
  q.options.refine = 0;
  q.options.damping = GENERATE(0.01, 0.3);
  q.options.act_order = GENERATE(false, true);
  q.options.grid.group = 16;
  const std::string scheme = GENERATE("int4", "int2", "ternary");
  const Hessian hessian = moments_of(200, 40, 3);
  const at::Tensor diagonal = hessian.sum.diagonal();
  kernels::QuantInput input{q.weight(kQuery), {}};
  input.importance =
      diagonal + q.options.damping * diagonal.mean().item<double>();
  at::Tensor moments = hessian.sum;
  if (q.options.act_order) {
    input.order = diagonal.argsort(0, /*descending=*/true);
    moments = moments.index_select(0, input.order).index_select(1, input.order);
  }
  input.factor = factor_of(moments, q.options.damping);
  const kernels::QuantGrid grid =
      grid_of(parse_scheme(scheme), q.options.grid, 40);
  const at::Tensor expected =
      values_of(kernels::pack(kernels::quantize(input, grid), grid));
  const at::Tensor found = values_of(q.run(kQuery, scheme, &hessian).matrix);
  REQUIRE(share_differing(found, expected) < 0.02);
  // Without the compensation it would be something else.
  input.factor = at::Tensor();
  input.w = q.weight(kQuery);
  const at::Tensor nearest =
      values_of(kernels::pack(kernels::quantize(input, grid), grid));
  REQUIRE(share_differing(found, nearest) > 0.05);
}

TEST_CASE("An error is that of the output under the moments") {
  Quantizing q;
  q.options.method = GENERATE(Method::kGptq, Method::kRtn);
  const std::string scheme =
      GENERATE("int8", "int3", "ternary", "ternary-coded");
  const Hessian hessian = moments_of(200, 40, 5);
  const QuantizedWeight found = q.run(kQuery, scheme, &hessian);
  const at::Tensor w = q.weight(kQuery);
  const at::Tensor difference = values_of(found.matrix) - w;
  REQUIRE(
      found.error ==
      Approx(squares_under(difference, hessian.sum)).epsilon(1e-3));
  REQUIRE(found.energy == Approx(squares_under(w, hessian.sum)).epsilon(1e-4));
  REQUIRE(found.tokens == 200);
  REQUIRE_FALSE(found.scarce);
  const QuantizedWeight unled = q.run(kQuery, scheme, nullptr);
  REQUIRE(
      unled.error == Approx((values_of(unled.matrix) - w)
                                .to(at::kDouble)
                                .square()
                                .sum()
                                .item<double>()));
  REQUIRE(
      unled.energy == Approx(w.to(at::kDouble).square().sum().item<double>()));
  REQUIRE(unled.tokens == 0);
  REQUIRE_FALSE(unled.scarce);
}

TEST_CASE("A matrix of many rows without moments is rounded in parts") {
  TinyModelOptions model = forty_wide();
  model.changes["vocab_size"] = 9001;
  Quantizing q(model);
  q.options.method = Method::kRtn;
  const WeightId embeddings{Role::kEmbedTokens};
  const std::string scheme = GENERATE("int4", "int3", "ternary-coded");
  const QuantizedWeight found = q.run(embeddings, scheme, nullptr);
  const kernels::QuantGrid grid =
      grid_of(parse_scheme(scheme), q.options.grid, 40);
  const at::Tensor w = q.weight(embeddings);
  const at::Tensor expected =
      values_of(kernels::pack(kernels::quantize({w.clone(), {}}, grid), grid));
  REQUIRE(expected.equal(values_of(found.matrix)));
  const at::Tensor lost = (expected - w).to(at::kDouble).square().sum();
  REQUIRE(found.error == Approx(lost.item<double>()));
}

// tr(W M Wᵀ), M being what the rounding was led by: energies show it.
struct Starving : Quantizing {
  Starving() { of_layer = moments_of(500, 40, 7); }

  Approx energy(const WeightId& id, const at::Tensor& moments) const {
    return Approx(squares_under(weight(id), moments)).epsilon(1e-4);
  }
  double found(const WeightId& id, const Hessian& hessian) {
    return run(id, "int4", &hessian).energy;
  }
  at::Tensor layer() const { return of_layer.sum.to(at::kDouble); }
};

TEST_CASE_METHOD(
    Starving, "Moments of few tokens are drawn toward the layer's") {
  SECTION("by the share of columns that they lack") {
    const std::int64_t tokens = GENERATE(1, 10, 39);
    const Hessian few = moments_of(tokens, 40, 9);
    const at::Tensor own = few.sum.to(at::kDouble);
    const double share = static_cast<double>(tokens) / 40;
    const at::Tensor scale = own.trace() / layer().trace();
    const QuantizedWeight starved = run(kGate, "int4", &few);
    REQUIRE(starved.scarce);
    REQUIRE(starved.tokens == tokens);
    REQUIRE(
        starved.energy ==
        energy(kGate, share * own + (1 - share) * scale * layer()));
  }
  SECTION("of down, whose inputs are the expert's own, toward all alike") {
    const Hessian few = moments_of(6, 24, 11);
    const at::Tensor own = few.sum.to(at::kDouble);
    const at::Tensor mean = own.trace() / 24 * at::eye(24, at::kDouble);
    REQUIRE(found(kDown, few) == energy(kDown, 0.25 * own + 0.75 * mean));
  }
  SECTION("of none, they are the layer's") {
    const Hessian none;
    REQUIRE(found(kGate, none) == energy(kGate, layer()));
    REQUIRE(found(kDown, none) == energy(kDown, at::eye(24)));
    REQUIRE(run(kGate, "int4", &none).scarce);
    REQUIRE(run(kGate, "int4", &none).tokens == 0);
  }
  SECTION("of tokens that showed nothing, they are the layer's") {
    const Hessian dark{at::zeros({40, 40}), 12};
    REQUIRE(found(kGate, dark) == energy(kGate, layer()));
  }
  SECTION("without the layer's moments, toward all columns alike") {
    of_layer = {};
    REQUIRE(found(kGate, {}) == energy(kGate, at::eye(40)));
  }
}

TEST_CASE_METHOD(Starving, "Moments are as they were seen") {
  SECTION("where there are as many tokens as columns") {
    const Hessian enough = moments_of(40, 40, 13);
    REQUIRE(found(kGate, enough) == energy(kGate, enough.sum));
    REQUIRE_FALSE(run(kGate, "int4", &enough).scarce);
  }
  SECTION("by matrices that are no expert's") {
    const Hessian few = moments_of(10, 40, 15);
    REQUIRE(found(kQuery, few) == energy(kQuery, few.sum));
  }
  SECTION("where nothing else is wanted") {
    options.starved = Starved::kRtn;
    const Hessian few = moments_of(10, 40, 17);
    REQUIRE(found(kGate, few) == energy(kGate, few.sum));
    // With no token the rounding is to nearest, as without data.
    const Hessian none;
    const QuantizedWeight unseen = run(kGate, "int4", &none);
    const QuantizedWeight unled = run(kGate, "int4", nullptr);
    REQUIRE(unseen.matrix.codes.equal(unled.matrix.codes));
    REQUIRE(unseen.error == unled.error);
    REQUIRE(unseen.scarce);
  }
}

TEST_CASE("Moments of no full rank lead as well") {
  Quantizing q;
  // 1e-12 is below what fp32 can tell: the factorization has to be damped more.
  q.options.damping = GENERATE(0.01, 1e-12);
  q.options.act_order = GENERATE(false, true);
  const Hessian hessian = moments_of(GENERATE(1, 3), 40, 19);
  const double error = q.run(kQuery, "int4", &hessian).error;
  q.options.method = Method::kRtn;
  // 40 roundings make up for each other in one direction or three.
  REQUIRE(error < 0.1 * q.run(kQuery, "int4", &hessian).error);
}

TEST_CASE("Inputs that are all zero lead nowhere, and cost no weight") {
  Quantizing q;
  q.options.method = GENERATE(Method::kGptq, Method::kRtn);
  const std::string scheme = GENERATE("int4", "ternary");
  const Hessian dark{at::zeros({40, 40}), 100};
  const QuantizedWeight found = q.run(kGate, scheme, &dark);
  REQUIRE(found.error == 0);
  REQUIRE(found.energy == 0);
  // No worse than rounding without data.
  const at::Tensor off = values_of(found.matrix) - q.weight(kGate);
  REQUIRE(
      off.to(at::kDouble).square().sum().item<double>() <=
      q.run(kGate, scheme, nullptr).error * (1 + 1e-6));
}

TEST_CASE("Refined codes lose less of the output") {
  Quantizing q;
  const std::string scheme = GENERATE("int4", "int2", "ternary");
  const Hessian hessian = moments_of(200, 40, 25);
  q.options.refine = 0;
  const double before = q.run(kQuery, scheme, &hessian).error;
  q.options.refine = 2;
  REQUIRE(q.run(kQuery, scheme, &hessian).error < 0.97 * before);
}

TEST_CASE("What is not finite is refused by its weight's name") {
  const std::string name = "model.layers.0.mlp.experts.1.gate_proj.weight";
  const float bad = GENERATE(
      std::numeric_limits<float>::quiet_NaN(),
      std::numeric_limits<float>::infinity());
  const Hessian* led = nullptr;
  Hessian hessian = moments_of(100, 40, 21);
  TinyModelOptions options = forty_wide();
  std::string message;
  SECTION("a weight") {
    options.edit = [&](const WeightId& id, at::Tensor tensor) {
      if (id == kGate) tensor[3][5] = bad;
      return tensor;
    };
    led = GENERATE(true, false) ? &hessian : nullptr;
    message = "NaN or infinite";
  }
  SECTION("an input") {
    hessian.sum[7][7] = bad;
    led = &hessian;
    message = "expected finite inputs from the calibration data";
  }
  SECTION("the square of a weight") {
    options.edit = [&](const WeightId& id, at::Tensor tensor) {
      return id == kGate ? tensor * 1e25 : tensor;
    };
    message = "none that is finite";
  }
  Quantizing q(options);
  REQUIRE_THROWS_AS(q.run(kGate, "int4", led), UserError);
  REQUIRE_THROWS_WITH(
      q.run(kGate, "int4", led), Contains(name) && Contains(message));
}

TEST_CASE("Each group of a row is fitted by itself, the last as it comes") {
  const std::int64_t width = GENERATE(40, 200, 1408);
  const std::int64_t group = GENERATE(0, 16, 128, 5000);
  Quantizing q(forty_wide(width));
  q.options.grid.group = group;
  const std::string scheme = GENERATE("int4", "int2", "ternary");
  const kernels::PackedMatrix found = q.run(kDown, scheme, nullptr).matrix;
  const std::int64_t size = group == 0 ? width : std::min(group, width);
  const std::int64_t groups = (width + size - 1) / size;
  REQUIRE(found.scales.sizes() == at::IntArrayRef({40, groups}));
  const at::Tensor values = values_of(found);
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t first = g * size;
    const std::int64_t cols = std::min(size, width - first);
    kernels::QuantGrid alone =
        grid_of(parse_scheme(scheme), q.options.grid, cols);
    const at::Tensor part =
        q.weight(kDown).narrow(1, first, cols).contiguous().clone();
    const auto fitted =
        values_of(kernels::pack(kernels::quantize({part, {}}, alone), alone));
    CAPTURE(width, group, g);
    REQUIRE(values.narrow(1, first, cols).equal(fitted));
  }
}

TEST_CASE("By themselves 2 and 3 bits have zero points unless refined") {
  const Hessian hessian = moments_of(200, 40, 3);
  Quantizing q;
  const auto has_zeros = [&](const std::string& scheme, const Hessian* h) {
    return q.run(kQuery, scheme, h).matrix.zeros.defined();
  };
  for (const std::string scheme : {"int2", "int3"}) {
    CAPTURE(scheme);
    q.options = {};
    CHECK_FALSE(has_zeros(scheme, &hessian));
    CHECK(has_zeros(scheme, nullptr));
    q.options.refine = 0;
    CHECK(has_zeros(scheme, &hessian));
    q.options = {.method = Method::kRtn};
    CHECK(has_zeros(scheme, &hessian));
    q.options = {};
    q.options.grid.symmetric = false;
    CHECK(has_zeros(scheme, &hessian));
  }
  q.options = {};
  CHECK_FALSE(has_zeros("int4", nullptr));
}

TEST_CASE("Matrices of no weights are quantized to none") {
  TinyModelOptions options = forty_wide();
  options.widths = {{24, 0}};
  Quantizing q(options);
  const std::string scheme = GENERATE("int4", "ternary", "ternary-coded");
  const Hessian none;
  for (const Hessian* hessian : {static_cast<const Hessian*>(nullptr), &none}) {
    for (const WeightId& id : {kGate, kDown}) {
      const QuantizedWeight found = q.run(id, scheme, hessian);
      REQUIRE(found.matrix.rows * found.matrix.cols == 0);
      REQUIRE(found.error == 0);
      REQUIRE(found.energy == 0);
      const at::Tensor stored = model::to_stored(found.matrix);
      REQUIRE(model::from_stored(stored, "w").rows == found.matrix.rows);
    }
  }
}

TEST_CASE("Weights with one input share its moments, each by its scheme") {
  Quantizing q;
  const Hessian hessian = moments_of(100, 40, 23);
  const WeightId up{Role::kExpertUp, 0, 1};
  const std::vector<WeightScheme> weights{
      {kGate, parse_scheme("int4")},
      {up, parse_scheme("int2")},
      {kGate, parse_scheme("ternary")}};
  const auto found = LayerQuantizer(q.reader, q.options, q.of_layer)
                         .quantize(weights, &hessian);
  REQUIRE(found.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    const auto& [id, scheme] = weights[i];
    const QuantizedWeight alone = q.run(id, scheme_name(scheme), &hessian);
    REQUIRE((found[i].id == id));
    REQUIRE(found[i].matrix.codes.equal(alone.matrix.codes));
    REQUIRE(found[i].error == alone.error);
  }
}

}  // namespace
}  // namespace fettle::quant
