// SPDX-License-Identifier: Apache-2.0
// Models whose weights are fp8 codes with a scale a block.
#include <catch2/catch.hpp>

#include <limits>

#include "core/error.h"
#include "model/weights/model_reader.h"
#include "model_folder.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::ModelFolder;
using fettle::model::testing::sample;

namespace {

const WeightId kUpWeight{Role::kExpertUp, 0, 1};  // [6, 8]
const std::string kUpName = "model.layers.0.mlp.experts.1.up_proj.weight";
const std::string kUpScale = kUpName + "_scale_inv";

Json fp8_json(const Json& block) {
  return {{"quant_method", "fp8"}, {"weight_block_size", block}};
}

// Codes of one value's magnitudes that e4m3 holds: -6 to 6, halves.
at::Tensor fp8_codes(std::int64_t rows, std::int64_t cols) {
  return at::arange(rows * cols, at::kFloat)
      .remainder(25)
      .sub(12)
      .div(2)
      .reshape({rows, cols})
      .to(at::kFloat8_e4m3fn);
}

// A model of one weight in fp8, the others plain.
struct Fp8Model {
  ModelFolder folder;
  explicit Fp8Model(const Json& block = {4, 3}) : folder(sample("olmoe")) {
    folder.json()["quantization_config"] = fp8_json(block);
    folder.json()["dtype"] = "float32";
    folder[kUpName] = fp8_codes(6, 8);
  }
};

void refused_fp8(ModelFolder& folder, const std::string& text) {
  const auto path = folder.write();
  CHECK_THROWS_AS(ModelReader(path), UserError);
  CHECK_THROWS_WITH(ModelReader(path), Catch::Contains(text));
}

// Each code times the scale of its block of `rows` x `cols`.
at::Tensor scaled_codes(
    const at::Tensor& codes,
    const at::Tensor& scales,
    std::int64_t rows,
    std::int64_t cols) {
  return codes.to(at::kFloat) * scales.to(at::kFloat)
                                    .repeat_interleave(rows, 0)
                                    .narrow(0, 0, codes.size(0))
                                    .repeat_interleave(cols, 1)
                                    .narrow(1, 0, codes.size(1));
}

}  // namespace

TEST_CASE("fp8 codes times the scale of their block, short at the edges") {
  const auto type =
      GENERATE(at::kFloat, at::kBFloat16, at::kHalf, at::kFloat8_e8m0fnu);
  Fp8Model model;
  const at::Tensor scales =
      at::arange(6, at::kFloat).exp2().reshape({2, 3}).to(type);
  model.folder[kUpScale] = scales;
  const ModelReader reader(model.folder.write());
  const at::Tensor values = scaled_codes(fp8_codes(6, 8), scales, 4, 3);
  CHECK(at::equal(reader.read(kUpWeight), values));
  CHECK(reader.dtype(kUpWeight) == at::kFloat);
  CHECK(reader.packed_header(kUpWeight) == nullptr);
  CHECK(reader.stored_form(kUpWeight)->name() == "fp8 in blocks of 4 x 3");
  CHECK(
      reader.stored_bytes(kUpWeight) ==
      48 + 6 * static_cast<std::int64_t>(c10::elementSize(type)));
  std::vector<at::Tensor> pieces;
  reader.read_rows(kUpWeight, 4, [&](std::int64_t, const at::Tensor& rows) {
    pieces.push_back(rows);
  });
  CHECK(at::equal(at::cat(pieces), values));
  const ExpertBank bank = reader.read_layer(0, at::kFloat).experts;
  CHECK(at::equal(bank.gate_up.narrow(0, 2 * bank.offsets[1] + 6, 6), values));
}

TEST_CASE("a layer in bf16 rounds each product once") {
  Fp8Model model;
  model.folder.json()["dtype"] = "bfloat16";
  const at::Tensor scales = at::full({2, 3}, 1.0 / 3);
  model.folder[kUpScale] = scales;
  const ModelReader reader(model.folder.write());
  const at::Tensor values =
      scaled_codes(fp8_codes(6, 8), scales, 4, 3).to(at::kBFloat16);
  CHECK(at::equal(reader.read(kUpWeight), values));
  CHECK(at::equal(reader.read_stored(kUpWeight), values));
  CHECK(reader.form(kUpWeight).dtype == at::kBFloat16);
  const ExpertBank bank = reader.read_layer(0, at::kBFloat16).experts;
  CHECK(at::equal(bank.gate_up.narrow(0, 2 * bank.offsets[1] + 6, 6), values));
}

TEST_CASE("without a block size a matrix has one scale") {
  Fp8Model model((Json()));
  const std::vector<std::int64_t> shape = GENERATE(
      std::vector<std::int64_t>{},
      std::vector<std::int64_t>{1},
      std::vector<std::int64_t>{1, 1});
  model.folder[kUpScale] = at::full(shape, 0.5);
  const ModelReader reader(model.folder.write());
  CHECK(
      at::equal(reader.read(kUpWeight), fp8_codes(6, 8).to(at::kFloat) * 0.5));
  CHECK(reader.stored_form(kUpWeight)->name() == "fp8 in blocks of 6 x 8");
  CHECK_FALSE(reader.stored_form(kUpWeight)->blocks());
}

TEST_CASE("a code of NaN and a scale that is none are refused when read") {
  const double bad = std::numeric_limits<double>::quiet_NaN();
  Fp8Model model;
  model.folder[kUpScale] = at::ones({2, 3});
  at::Tensor with_nan = fp8_codes(6, 8).to(at::kFloat);
  with_nan[5][7] = bad;
  model.folder[kUpName] = with_nan.to(at::kFloat8_e4m3fn);
  CHECK_THROWS_WITH(
      ModelReader(model.folder.write()).read_layer(0, at::kBFloat16),
      Catch::Contains(kUpName + ": holds 1 values that are NaN"));
  model.folder[kUpName] = fp8_codes(6, 8);
  model.folder[kUpScale][1][2] = bad;
  CHECK_THROWS_WITH(
      ModelReader(model.folder.write()).read_layer(0, at::kFloat),
      Catch::Contains(kUpName + ": holds 4 values that are NaN"));
}

TEST_CASE("scales that are missing, too much or misshapen are named") {
  Fp8Model missing;
  refused_fp8(missing.folder, kUpScale + ": is missing");
  Fp8Model misshapen;
  misshapen.folder[kUpScale] = at::ones({2, 2});
  refused_fp8(
      misshapen.folder,
      kUpScale +
          ": has shape [2, 2], which does not fit weights of [6, 8] in "
          "blocks of 4 x 3");
  Fp8Model mistyped;
  mistyped.folder[kUpScale] = at::ones({2, 3}).to(at::kInt);
  refused_fp8(
      mistyped.folder,
      kUpScale + ": is stored as I32, expected F32, BF16, F16, F8_E8M0, U8");
  Fp8Model extra;
  extra.folder[kUpScale] = at::ones({2, 3});
  const std::string gate = "model.layers.0.mlp.experts.1.gate_proj.weight";
  extra.folder[gate + "_scale_inv"] = at::ones({2, 3});
  refused_fp8(
      extra.folder, "stands beside " + gate + ", which is stored as F32");
  Fp8Model narrow;
  narrow.folder[kUpName] = fp8_codes(6, 7);
  narrow.folder[kUpScale] = at::ones({2, 3});
  refused_fp8(
      narrow.folder, "expected shape [6, 8] by config.json, found [6, 7]");
}

TEST_CASE("block sizes that can't be are refused with config.json") {
  for (const Json& block : std::vector<Json>{
           {0, 128},
           {128},
           {-1, 4},
           {1e30, 4},
           {"128", "128"},
           128,
           {128.5, 128}}) {
    Json json = testing::sample_json("olmoe");
    json["quantization_config"] = fp8_json(block);
    CHECK_THROWS_WITH(
        parse_model_config(json, "config.json"),
        Catch::Contains("'weight_block_size' must be two whole numbers"));
  }
  // Larger than any matrix: one scale for each.
  Fp8Model large(Json{1 << 30, 1 << 30});
  large.folder[kUpScale] = at::full({1, 1}, 2.0);
  CHECK(at::equal(
      ModelReader(large.folder.write()).read(kUpWeight),
      fp8_codes(6, 8).to(at::kFloat) * 2.0));
}

TEST_CASE("stacks of fp8 experts, with blocks that cross from gate to up") {
  const std::string experts = "model.layers.0.mlp.experts.";
  // Blocks that end with gate, that cross over, and one a half.
  const std::int64_t rows = GENERATE(3, 4, 12);
  ModelFolder folder(sample("olmoe"));
  folder.json()["quantization_config"] = fp8_json({rows, 5});
  folder.json()["dtype"] = "float32";
  folder.fuse(0, experts);
  const at::Tensor gate_up = fp8_codes(4 * 12, 8).reshape({4, 12, 8});
  const at::Tensor down = fp8_codes(4 * 8, 6).reshape({4, 8, 6});
  folder[experts + "gate_up_proj"] = gate_up;
  folder[experts + "down_proj"] = down;
  const std::int64_t grid = rows == 12 ? 2 : 12 / rows;
  const std::int64_t high = 12 / grid;
  const at::Tensor scales =
      at::arange(4 * grid * 2, at::kFloat).add(1).reshape({4, grid, 2});
  const std::int64_t down_grid = (8 + rows - 1) / rows;
  const at::Tensor down_scales = at::arange(4 * down_grid * 2, at::kFloat)
                                     .add(1)
                                     .reshape({4, down_grid, 2});
  folder[experts + "gate_up_proj_scale_inv"] = scales;
  folder[experts + "down_proj_scale_inv"] = down_scales;
  const ModelReader reader(folder.write());
  for (std::int64_t e = 0; e < 4; ++e) {
    const at::Tensor both = scaled_codes(gate_up[e], scales[e], high, 5);
    CHECK(at::equal(
        reader.read({Role::kExpertGate, 0, e}), both.narrow(0, 0, 6)));
    CHECK(
        at::equal(reader.read({Role::kExpertUp, 0, e}), both.narrow(0, 6, 6)));
    CHECK(at::equal(
        reader.read({Role::kExpertDown, 0, e}),
        scaled_codes(down[e], down_scales[e], rows, 5)));
  }
  const bool whole = rows == 3;
  CHECK(
      reader.stored_form({Role::kExpertUp, 0, 1})->blocks().has_value() ==
      whole);
  folder[experts + "down_proj_scale_inv"] = at::ones({4, down_grid, 3});
  refused_fp8(folder, "down_proj_scale_inv: expected shape [4, ");
  folder.json()["quantization_config"] = fp8_json(Json());
  refused_fp8(folder, "needs 'weight_block_size'");
}

TEST_CASE("scales of activations are left out") {
  Fp8Model model;
  model.folder[kUpScale] = at::ones({2, 3});
  const std::string left = "model.layers.0.mlp.experts.1.up_proj.input_scale";
  model.folder[left] = at::ones({1});
  const ModelReader reader(model.folder.write());
  CHECK(reader.left_out() == std::vector<std::string>{left});
}

TEST_CASE("what an fp8 model is told by are its codes and scales") {
  Fp8Model model;
  model.folder[kUpScale] = at::ones({2, 3});
  const std::string before = ModelReader(model.folder.write()).fingerprint();
  model.folder[kUpScale][1][2] = 2.0;
  const std::string other = ModelReader(model.folder.write()).fingerprint();
  CHECK(before != other);
  model.folder[kUpScale][1][2] = 1.0;
  CHECK(ModelReader(model.folder.write()).fingerprint() == before);
}
