// SPDX-License-Identifier: Apache-2.0
// Experts that lie in one tensor with gate and up in turns and inputs as rows,
// plain and in MXFP4.
#include <array>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <vector>

#include "core/error.h"
#include "model/weights/model_reader.h"
#include "model_folder.h"
#include "sample_config.h"

using namespace fettle;
using namespace fettle::model;
using fettle::model::testing::ModelFolder;

namespace {

constexpr std::int64_t kStacked = 4;
const std::string kStackPrefix = "model.layers.0.mlp.experts.";
const std::array kStackRoles{
    Role::kExpertGate,
    Role::kExpertUp,
    Role::kExpertDown,
    Role::kExpertGateBias,
    Role::kExpertUpBias};

ModelConfig wide_config() {
  return fettle::model::testing::sample(
      "gpt_oss",
      {{"hidden_size", 64},
       {"intermediate_size", 32},
       {"num_hidden_layers", 1}});
}

// All experts' weights of a role, taken out of the folder.
std::vector<at::Tensor> taken(ModelFolder& folder, Role role) {
  std::vector<at::Tensor> experts;
  for (std::int64_t e = 0; e < kStacked; ++e) {
    const WeightId id{role, 0, e};
    experts.push_back(folder[id]);
    folder.erase(weight_name(wide_config(), id));  // names don't hang on sizes
  }
  return experts;
}

// As gpt-oss stores them.
void stack(ModelFolder& folder) {
  const auto in_turns = [&](Role gate, Role up) {
    const auto gates = taken(folder, gate), ups = taken(folder, up);
    return at::stack({at::stack(gates), at::stack(ups)}, 2).flatten(1, 2);
  };
  folder[kStackPrefix + "gate_up_proj"] =
      in_turns(Role::kExpertGate, Role::kExpertUp).transpose(1, 2).contiguous();
  folder[kStackPrefix + "gate_up_proj_bias"] =
      in_turns(Role::kExpertGateBias, Role::kExpertUpBias);
  folder[kStackPrefix + "down_proj"] =
      at::stack(taken(folder, Role::kExpertDown)).transpose(1, 2).contiguous();
}

void refused_stack(ModelFolder& folder, const std::string& text) {
  const auto path = folder.write();
  CHECK_THROWS_AS(ModelReader(path), UserError);
  CHECK_THROWS_WITH(ModelReader(path), Catch::Contains(text));
}

// A model whose experts are stacks of codes.
struct Mxfp4Model {
  ModelFolder folder;
  Mxfp4Model() : folder(wide_config()) {
    folder.json()["quantization_config"] = {{"quant_method", "mxfp4"}};
    folder.json()["dtype"] = "bfloat16";
    taken(folder, Role::kExpertGate);
    taken(folder, Role::kExpertUp);
    taken(folder, Role::kExpertDown);
    put("gate_up_proj", {kStacked, 64, 2});
    put("down_proj", {kStacked, 64, 1});
  }

  void put(const std::string& name, std::vector<std::int64_t> shape) {
    at::Tensor& scales = folder[kStackPrefix + name + "_scales"];
    scales = at::arange(shape[0] * shape[1] * shape[2])
                 .remainder(7)
                 .add(124)
                 .to(at::kByte)
                 .reshape(shape);
    shape.push_back(16);
    at::Tensor& blocks = folder[kStackPrefix + name + "_blocks"];
    blocks = at::arange(scales.numel() * 16)
                 .mul(29)
                 .remainder(256)
                 .to(at::kByte)
                 .reshape(shape);
  }

  // Value i of row `row` of expert e, from its bits.
  float value(
      const std::string& name,
      std::int64_t e,
      std::int64_t row,
      std::int64_t i) {
    const int byte =
        folder[kStackPrefix + name + "_blocks"][e][row][i / 32][i % 32 / 2]
            .item<int>();
    const int code = i % 2 == 0 ? byte % 16 : byte / 16;
    const int exponent = code / 2 % 4, half = code % 2;
    const double size =
        exponent == 0 ? 0.5 * half : (1 + 0.5 * half) * std::exp2(exponent - 1);
    const int scale =
        folder[kStackPrefix + name + "_scales"][e][row][i / 32].item<int>();
    return static_cast<float>(
        (code >= 8 ? -size : size) * std::exp2(scale - 127));
  }
};

}  // namespace

TEST_CASE("gate and up in turns are taken apart") {
  const at::ScalarType type = GENERATE(at::kFloat, at::kBFloat16);
  ModelFolder plain(wide_config()), stacked(wide_config());
  for (const WeightId& id : model_weights(wide_config())) {
    plain[id] = plain[id].to(type);
    stacked[id] = stacked[id].to(type);
  }
  stack(stacked);
  const ModelReader expected(plain.write()), found(stacked.write());
  for (const Role role : kStackRoles) {
    for (std::int64_t e = 0; e < kStacked; ++e) {
      const WeightId id{role, 0, e};
      INFO(role_name(role) << e);
      const at::Tensor whole = expected.read(id);
      CHECK(at::equal(found.read(id), whole));
      std::vector<at::Tensor> pieces;
      found.read_rows(id, 5, [&](std::int64_t, const at::Tensor& rows) {
        pieces.push_back(rows);
      });
      CHECK(at::equal(at::cat(pieces), whole.to(at::kFloat)));
    }
  }
  const ExpertBank bank = found.read_layer(0, at::kFloat).experts;
  const ExpertBank like = expected.read_layer(0, at::kFloat).experts;
  CHECK(at::equal(bank.gate_up, like.gate_up));
  CHECK(at::equal(bank.gate_up_bias, like.gate_up_bias));
  CHECK(at::equal(bank.down, like.down));
  CHECK(found.fingerprint() != expected.fingerprint());
}

TEST_CASE("stacks of another shape, missing or twice there are named") {
  ModelFolder folder(wide_config());
  stack(folder);
  const at::Tensor whole = folder[kStackPrefix + "gate_up_proj"];
  folder[kStackPrefix + "gate_up_proj"] = whole.transpose(1, 2).contiguous();
  folder.json()["intermediate_size"] = 48;
  refused_stack(
      folder, "expected shape [4, 64, 96] by config.json, found [4, 64, 64]");
  folder.json()["intermediate_size"] = 32;
  folder.erase(kStackPrefix + "gate_up_proj");
  refused_stack(folder, kStackPrefix + "gate_up_proj");
  folder[kStackPrefix + "gate_up_proj"] = whole;
  folder[kStackPrefix + "2.gate_proj.bias"] = at::zeros({32});
  refused_stack(folder, "is also stored as");
}

TEST_CASE("MXFP4 is read exactly, halves of a byte and blocks in their order") {
  Mxfp4Model model;
  const ModelReader reader(model.folder.write());
  const auto check =
      [&](Role role, const std::string& name, int first, int step) {
        for (std::int64_t e = 0; e < kStacked; ++e) {
          const at::Tensor found = reader.read({role, 0, e}).to(at::kFloat);
          at::Tensor expected = at::empty(found.sizes());
          for (std::int64_t r = 0; r < found.size(0); ++r) {
            for (std::int64_t i = 0; i < found.size(1); ++i) {
              expected[r][i] = model.value(name, e, first + step * r, i);
            }
          }
          CHECK(at::equal(found, expected));
        }
      };
  check(Role::kExpertGate, "gate_up_proj", 0, 2);
  check(Role::kExpertUp, "gate_up_proj", 1, 2);
  check(Role::kExpertDown, "down_proj", 0, 1);
  const WeightId id{Role::kExpertUp, 0, 3};
  CHECK(reader.dtype(id) == at::kBFloat16);
  CHECK(reader.stored_form(id)->name() == "MXFP4");
  CHECK(reader.has_coded());
  const ExpertBank bank = reader.read_layer(0, at::kBFloat16).experts;
  CHECK(at::equal(
      bank.gate_up.narrow(0, 2 * bank.offsets[3] + 32, 32), reader.read(id)));
}

TEST_CASE("of interleaved MXFP4 each weight counts its own rows") {
  Mxfp4Model model;
  const ModelReader reader(model.folder.write());
  std::int64_t counted = 0;
  for (const WeightId& id : model_weights(reader.config())) {
    counted += reader.stored_bytes(id);
  }
  CHECK(
      counted == static_cast<std::int64_t>(reader.checkpoint().total_bytes()));
}

TEST_CASE("MXFP4 without a part, of another shape or type is named") {
  const auto refused_with = [](const std::function<void(ModelFolder&)>& change,
                               const std::string& text) {
    Mxfp4Model model;
    change(model.folder);
    refused_stack(model.folder, text);
  };
  refused_with(
      [](auto& f) { f.erase(kStackPrefix + "gate_up_proj_scales"); },
      kStackPrefix + "gate_up_proj_scales");
  refused_with(
      [](auto& f) { f.erase(kStackPrefix + "down_proj_blocks"); },
      kStackPrefix + "down_proj_blocks");
  refused_with(
      [](auto& f) {
        f[kStackPrefix + "down_proj_scales"] =
            at::zeros({kStacked, 64, 2}, at::kByte);
      },
      "expected shape [4, 64, 1] by config.json, found [4, 64, 2]");
  refused_with(
      [](auto& f) {
        f[kStackPrefix + "down_proj_blocks"] =
            at::zeros({kStacked, 64, 1, 8}, at::kByte);
      },
      "expected shape [4, 64, 1, 16] by config.json");
  refused_with(
      [](auto& f) {
        f[kStackPrefix + "down_proj_scales"] =
            f[kStackPrefix + "down_proj_scales"].to(at::kFloat);
      },
      "is stored as F32, expected U8");
  refused_with(
      [](auto& f) {
        f[kStackPrefix + "down_proj"] = at::zeros({kStacked, 32, 64});
      },
      "stands beside " + kStackPrefix + "down_proj");
  refused_with(
      [](auto& f) { f.json().erase("quantization_config"); },
      kStackPrefix + "gate_up_proj");
  // In down, 40 neurons lie in blocks of 32.
  Mxfp4Model narrow;
  narrow.folder.json()["intermediate_size"] = 40;
  narrow.put("gate_up_proj", {kStacked, 80, 2});
  refused_stack(narrow.folder, "no whole number of MXFP4's blocks of 32");
}

TEST_CASE("a scale of 255 is refused when it is read") {
  Mxfp4Model model;
  model.folder[kStackPrefix + "down_proj_scales"][2][7][0] = 255;
  const ModelReader reader(model.folder.write());
  CHECK_NOTHROW(reader.read({Role::kExpertDown, 0, 1}));
  CHECK_THROWS_AS(reader.read_layer(0, at::kFloat), UserError);
  CHECK_THROWS_WITH(
      reader.read({Role::kExpertDown, 0, 2}),
      Catch::Contains("down_proj_scales: holds scales of 255, which are NaN"));
}
