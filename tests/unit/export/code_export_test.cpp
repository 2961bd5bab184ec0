// SPDX-License-Identifier: Apache-2.0
// compressed-tensors and gptq from packed models; tests/hf loads what they
// write with the libraries that they are for.
#include "export/codes/code_export.h"

#include <catch2/catch.hpp>
#include <fstream>

#include "core/error.h"
#include "io/checkpoint.h"
#include "packed_tiny_model.h"

namespace fettle::exporter {
namespace {

using Catch::Matchers::Contains;
using model::Role;
using testing::grids;
using testing::ints;
using testing::PackedTinyModel;
using testing::TemporaryFolder;
using testing::TinyModelOptions;
using testing::trits;
using testing::wide;

ExportResult run_codes(
    const std::filesystem::path& model,
    const ExportOptions& options,
    const TemporaryFolder& out) {
  const model::ModelReader reader(model);
  return export_model(reader, options, out.path());
}

Json quantization(const TemporaryFolder& out) {
  return read_json(out.path() / "config.json", "test")["quantization_config"];
}

const ExportOptions kCompressed{.format = Format::kCompressedTensors};
const ExportOptions kGptqLayout{.format = Format::kGptq};

TEST_CASE("Packed models of all families keep every value as codes") {
  const std::string family = GENERATE(
      "qwen3_moe",
      "qwen2_moe",
      "mixtral",
      "olmoe",
      "deepseek_v2",
      "ernie4_5_moe",
      "lfm2_moe",
      "qwen3_next",
      "qwen3_5_moe_text");
  const Format format = GENERATE(Format::kCompressedTensors, Format::kGptq);
  const PackedTinyModel tiny(wide(family), grids(ints(4, 16), ints(8, 32)));
  const TemporaryFolder out;
  const ExportResult result = run_codes(tiny.path(), {.format = format}, out);
  REQUIRE(result.max_error == 0);
  REQUIRE(result.rounded == 0);
  REQUIRE(result.padded_neurons == 0);
  REQUIRE(result.types.at("int4") > 0);
  REQUIRE(result.types.at("int8") > 0);
  const io::Checkpoint checkpoint = io::Checkpoint::open(out.path());
  REQUIRE(
      checkpoint.total_bytes() ==
      static_cast<std::uint64_t>(result.after.bytes));
  REQUIRE(std::filesystem::exists(out.path() / "fettle.json"));
  REQUIRE(std::filesystem::exists(out.path() / "tokenizer.json"));
}

TEST_CASE("compressed-tensors names what is not as the experts are") {
  const PackedTinyModel tiny(wide("qwen3_moe"), [](const model::WeightId& id) {
    return grids(
        ints(4, 16),
        id.role == Role::kQProj ? std::nullopt
                                : std::optional(ints(4, 64, false)))(id);
  });
  const TemporaryFolder out;
  run_codes(tiny.path(), kCompressed, out);
  const Json config = quantization(out);
  REQUIRE(config["format"] == "pack-quantized");
  const Json experts = config["config_groups"]["group_1"];
  REQUIRE(experts["targets"] == Json::array({"Linear"}));
  REQUIRE(experts["weights"]["num_bits"] == 4);
  REQUIRE(experts["weights"]["group_size"] == 16);
  REQUIRE(experts["weights"]["symmetric"] == true);
  const Json others = config["config_groups"]["group_0"];
  REQUIRE(others["weights"]["strategy"] == "channel");
  REQUIRE(others["weights"]["group_size"] == nullptr);
  REQUIRE(others["weights"]["symmetric"] == false);
  REQUIRE(
      others["targets"] ==
      Json::array(
          {R"(re:^model\.layers\.\d+\.self_attn\.k_proj$)",
           R"(re:^model\.layers\.\d+\.self_attn\.v_proj$)",
           R"(re:^model\.layers\.\d+\.self_attn\.o_proj$)"}));
  const Json ignored = config["ignore"];
  REQUIRE(
      ignored == Json::array(
                     {"lm_head",
                      R"(re:^model\.layers\.\d+\.self_attn\.q_proj$)",
                      R"(re:^model\.layers\.\d+\.mlp\.gate$)"}));
  const io::Checkpoint checkpoint = io::Checkpoint::open(out.path());
  const std::string expert = "model.layers.0.mlp.experts.0.gate_proj";
  REQUIRE(
      checkpoint.require(expert + ".weight_packed").shape ==
      std::vector<std::int64_t>{32, 8});
  REQUIRE(
      checkpoint.require(expert + ".weight_scale").shape ==
      std::vector<std::int64_t>{32, 4});
  REQUIRE(checkpoint.find(expert + ".weight_zero_point") == nullptr);
  REQUIRE(
      checkpoint.require("model.layers.0.self_attn.k_proj.weight_zero_point")
          .shape == std::vector<std::int64_t>{8, 1});
}

TEST_CASE("No pattern of compressed-tensors looks like the experts'") {
  const PackedTinyModel tiny(
      wide("deepseek_v2"), grids(ints(4, 16), ints(8, 32)));
  const TemporaryFolder out;
  run_codes(tiny.path(), kCompressed, out);
  const std::string text = quantization(out).dump();
  REQUIRE(text.find("experts") == std::string::npos);
  REQUIRE(text.find("shared_exp[e]rts") != std::string::npos);
}

TEST_CASE("Scales have the type that the model is loaded in") {
  TinyModelOptions options = wide("qwen3_moe", {{"dtype", "bfloat16"}});
  const PackedTinyModel tiny(options, grids(ints(4, 16), ints(8, 32)));
  const TemporaryFolder out, other;
  const std::string scale =
      "model.layers.0.mlp.experts.0.gate_proj.weight_scale";
  run_codes(tiny.path(), kCompressed, out);
  REQUIRE(
      io::Checkpoint::open(out.path()).require(scale).dtype ==
      io::DType::kBF16);
  ExportOptions wanted = kCompressed;
  wanted.dtype = at::kFloat;
  run_codes(tiny.path(), wanted, other);
  REQUIRE(
      io::Checkpoint::open(other.path()).require(scale).dtype ==
      io::DType::kF32);
  REQUIRE(
      read_json(other.path() / "config.json", "test")["dtype"] == "float32");
}

TEST_CASE("gptq tells versions, exceptions and names of its own") {
  const PackedTinyModel tiny(wide("mixtral"), [](const model::WeightId& id) {
    if (id.role == Role::kVProj && id.layer == 1) {
      return std::optional<kernels::QuantGrid>();
    }
    return grids(ints(4, 16), ints(8, 64))(id);
  });
  const TemporaryFolder out;
  run_codes(tiny.path(), kGptqLayout, out);
  const Json config = quantization(out);
  REQUIRE(config == read_json(out.path() / "quantize_config.json", "test"));
  REQUIRE(config["bits"] == 4);
  REQUIRE(config["group_size"] == 16);
  REQUIRE(config["checkpoint_format"] == "gptq");
  const Json dynamic = config["dynamic"];
  REQUIRE(dynamic.size() == 5);
  const Json attention =
      dynamic[R"(+:^model\.layers\.\d+\.self_attn\.q_proj$)"];
  REQUIRE(attention["bits"] == 8);
  REQUIRE(attention["group_size"] == -1);
  REQUIRE(dynamic.contains(R"(-:^model\.layers\.1\.self_attn\.v_proj$)"));
  REQUIRE(dynamic.contains(R"(+:^model\.layers\.0\.self_attn\.v_proj$)"));
  const io::Checkpoint checkpoint = io::Checkpoint::open(out.path());
  const std::string down = "model.layers.0.mlp.experts.3.down_proj";
  const auto shape = [&](const char* part) {
    return checkpoint.require(down + part).shape;
  };
  REQUIRE(shape(".qweight") == std::vector<std::int64_t>{4, 64});
  REQUIRE(shape(".qzeros") == std::vector<std::int64_t>{2, 8});
  REQUIRE(shape(".scales") == std::vector<std::int64_t>{2, 64});
  REQUIRE(shape(".g_idx") == std::vector<std::int64_t>{32});
}

TEST_CASE("gptq stores zeros less one, or with some as they are") {
  const bool symmetric = GENERATE(true, false);
  const PackedTinyModel tiny(
      wide("qwen3_moe"), grids(ints(4, 16, symmetric), ints(4, 16)));
  const TemporaryFolder out;
  run_codes(tiny.path(), kGptqLayout, out);
  REQUIRE(
      quantization(out)["checkpoint_format"] ==
      (symmetric ? "gptq" : "gptq_v2"));
  const io::Checkpoint checkpoint = io::Checkpoint::open(out.path());
  const std::string name = "model.layers.0.self_attn.q_proj.qzeros";
  std::vector<std::uint32_t> words(
      checkpoint.require(name).bytes() / sizeof(std::uint32_t));
  checkpoint.read(name, std::as_writable_bytes(std::span(words)));
  for (const std::uint32_t word : words) {
    REQUIRE(word == (symmetric ? 0x77777777 : 0x88888888));
  }
}

TEST_CASE("Experts are filled up to one width and whole groups") {
  TinyModelOptions options = wide("deepseek_v2", {{"n_shared_experts", 2}});
  options.widths = {{}, {40, 7, 0, 33}};
  const PackedTinyModel tiny(options, grids(ints(4, 16), ints(8, 16)));
  const TemporaryFolder out;
  const ExportResult result = run_codes(tiny.path(), kCompressed, out);
  REQUIRE(result.after.max_width == 48);
  REQUIRE(result.after.min_width == 48);
  REQUIRE(result.max_error == 0);
  const Json config = read_json(out.path() / "config.json", "test");
  REQUIRE_FALSE(config.contains("fettle"));
  REQUIRE(config["moe_intermediate_size"] == 48);
  // 64 shared neurons, counted in experts.
  REQUIRE(config["n_shared_experts"] == 2);
  const io::Checkpoint checkpoint = io::Checkpoint::open(out.path());
  REQUIRE(
      checkpoint
          .require("model.layers.1.mlp.shared_experts.down_proj.weight_packed")
          .shape == std::vector<std::int64_t>{64, 96 * 8 / 32});
  REQUIRE(
      checkpoint.require("model.layers.1.mlp.experts.1.down_proj.weight_scale")
          .shape == std::vector<std::int64_t>{64, 3});
}

TEST_CASE("Shared experts and dense layers are filled up to whole groups") {
  Json changes = {
      {"shared_expert_intermediate_size", 40},
      {"intermediate_size", 56},
      {"mlp_only_layers", {0}}};
  const PackedTinyModel tiny(
      wide("qwen2_moe", changes), grids(ints(4, 16), ints(8, 32)));
  const TemporaryFolder out;
  REQUIRE(run_codes(tiny.path(), kCompressed, out).max_error == 0);
  const Json config = read_json(out.path() / "config.json", "test");
  REQUIRE(config["shared_expert_intermediate_size"] == 64);
  REQUIRE(config["intermediate_size"] == 64);
  REQUIRE(config["moe_intermediate_size"] == 32);
}

void require_refusal(
    const PackedTinyModel& tiny,
    ExportOptions options,
    const std::string& message) {
  const TemporaryFolder refused;
  REQUIRE_THROWS_AS(run_codes(tiny.path(), options, refused), UserError);
  REQUIRE_THROWS_WITH(
      run_codes(tiny.path(), options, refused), Contains(message));
}

void require_recoded(
    const PackedTinyModel& tiny, ExportOptions options, const char* type) {
  options.recode = true;
  const TemporaryFolder out;
  const ExportResult result = run_codes(tiny.path(), options, out);
  REQUIRE(result.max_error == 0);
  REQUIRE(result.types.at(type) > 0);
  for (const auto& [name, numbers] : result.types) {
    if (name != type) REQUIRE(name == "F32");
  }
}

TEST_CASE("Codes that a format lacks are refused, or held in others") {
  SECTION("experts with zero points") {
    const PackedTinyModel tiny(
        wide("qwen3_moe"), grids(ints(3, 16, false), ints(4, 16)));
    require_refusal(tiny, kCompressed, "is int3 with zeros in groups of 16");
    require_recoded(tiny, kCompressed, "int4");
  }
  SECTION("int4 experts with zero points") {
    const PackedTinyModel tiny(
        wide("qwen3_moe"), grids(ints(4, 16, false), ints(8, 16)));
    require_recoded(tiny, kCompressed, "int8");
  }
  SECTION("int8 experts with zero points") {
    const PackedTinyModel tiny(
        wide("qwen3_moe"), grids(ints(8, 16, false), ints(8, 16)));
    ExportOptions recode = kCompressed;
    recode.recode = true;
    require_refusal(tiny, recode, "needs 9 bits without zero points");
  }
  SECTION("ternary") {
    const PackedTinyModel tiny(wide("qwen3_moe"), grids(trits(16), trits(32)));
    require_refusal(tiny, kCompressed, "is ternary");
    require_recoded(tiny, kCompressed, "int4");
    require_refusal(tiny, kGptqLayout, "is ternary");
    require_recoded(tiny, kGptqLayout, "int2");
  }
  SECTION("experts of two schemes") {
    const PackedTinyModel tiny(
        wide("qwen3_moe"), [](const model::WeightId& id) {
          const bool down = id.role == Role::kExpertDown;
          return grids(down ? ints(8, 16) : ints(4, 32), ints(8, 32))(id);
        });
    require_refusal(tiny, kCompressed, "has one scheme for all experts");
    require_recoded(tiny, kCompressed, "int8");
    const TemporaryFolder out;
    REQUIRE(run_codes(tiny.path(), kGptqLayout, out).max_error == 0);
  }
  SECTION("groups that rows are no whole number of") {
    const PackedTinyModel tiny(
        wide("qwen3_moe"), grids(ints(4, 24), ints(4, 64)));
    require_refusal(
        tiny, kCompressed, "has rows of 64 weights, no whole number of groups");
    require_recoded(tiny, kCompressed, "int4");
    require_refusal(tiny, kGptqLayout, "has groups of 24; gptq knows 16, 32");
  }
  SECTION("groups that gptq has none of") {
    const PackedTinyModel tiny(
        wide("qwen3_moe"), grids(ints(4, 48), ints(4, 64)));
    require_refusal(tiny, kGptqLayout, "or export with --recode");
    require_recoded(tiny, kGptqLayout, "int4");
  }
}

TEST_CASE("Experts that loaders find in stacks alone are no single codes") {
  const PackedTinyModel tiny(
      wide("gpt_oss"), grids(std::nullopt, std::nullopt));
  require_refusal(tiny, kGptqLayout, "in stacks, of which gptq holds none");
}

TEST_CASE("Models that a format can't hold are refused") {
  SECTION("plain") {
    const PackedTinyModel tiny(
        wide("qwen3_moe"), grids(std::nullopt, std::nullopt));
    require_refusal(tiny, kGptqLayout, "run fettle quant first");
  }
  SECTION("a plain expert") {
    const PackedTinyModel tiny(
        wide("qwen3_moe"), [](const model::WeightId& id) {
          return id.expert == 2 ? std::nullopt
                                : grids(ints(4, 16), ints(4, 16))(id);
        });
    require_refusal(tiny, kCompressed, "experts.2.gate_proj.weight");
    require_refusal(tiny, kCompressed, "is not packed");
    const TemporaryFolder out;
    REQUIRE(run_codes(tiny.path(), kGptqLayout, out).max_error == 0);
  }
  SECTION("constants") {
    TinyModelOptions options = wide("qwen3_moe");
    options.constants = true;
    const PackedTinyModel tiny(options, grids(ints(4, 16), ints(4, 16)));
    require_refusal(
        tiny, kCompressed, "for which format compressed-tensors has no place");
    ExportOptions dropped = kCompressed;
    dropped.drop_constants = true;
    const TemporaryFolder out;
    REQUIRE(run_codes(tiny.path(), dropped, out).max_error == 0);
  }
  SECTION("sides that are no whole words") {
    const PackedTinyModel tiny(
        wide("qwen3_moe", {{"num_key_value_heads", 1}, {"head_dim", 4}}),
        grids(ints(4, 16), ints(4, 16)));
    require_refusal(tiny, kGptqLayout, "has a side of 4 codes of 4 bits");
  }
  SECTION("packed embeddings") {
    const PackedTinyModel tiny(
        wide("qwen3_moe", {{"dtype", "bfloat16"}}),
        [](const model::WeightId& id) {
          if (id.role == Role::kEmbedTokens) {
            return std::optional(ints(8, 64, false));
          }
          return grids(ints(4, 16), ints(4, 16))(id);
        });
    require_refusal(tiny, kCompressed, "model.embed_tokens.weight");
    ExportOptions nearest = kCompressed;
    nearest.nearest = true;
    const TemporaryFolder out, exact;
    const ExportResult result = run_codes(tiny.path(), nearest, out);
    REQUIRE(result.rounded == 1);
    REQUIRE(result.max_error > 0);
    REQUIRE(result.max_error < 1.0 / 256);
    ExportOptions wider = kCompressed;
    wider.dtype = at::kFloat;
    REQUIRE(run_codes(tiny.path(), wider, exact).rounded == 0);
  }
}

TEST_CASE("Scales that 16 bits can't hold are refused or rounded") {
  TinyModelOptions options = wide("qwen3_moe");
  options.edit = [](const model::WeightId& id, const at::Tensor& tensor) {
    return id.role == Role::kExpertUp ? tensor * 1e-7 : tensor;
  };
  const PackedTinyModel tiny(options, grids(ints(4, 16), ints(4, 16)));
  const TemporaryFolder refused, out;
  REQUIRE_THROWS_WITH(
      run_codes(tiny.path(), kGptqLayout, refused),
      Contains("up_proj") && Contains("--nearest"));
  REQUIRE(run_codes(tiny.path(), kCompressed, out).max_error == 0);
}

TEST_CASE("A changed code is found") {
  const Format format = GENERATE(Format::kCompressedTensors, Format::kGptq);
  const PackedTinyModel tiny(
      wide("qwen3_moe"), grids(ints(4, 16), ints(4, 16)));
  const TemporaryFolder out;
  const ExportOptions options{.format = format};
  run_codes(tiny.path(), options, out);
  const model::ModelReader reader(tiny.path());
  REQUIRE_NOTHROW(check_codes(reader, options, out.path()));
  const std::string name = "model.layers.1.mlp.experts.2.down_proj";
  const char* const part =
      format == Format::kGptq ? ".qweight" : ".weight_packed";
  std::uint64_t begin = 0;
  {
    const io::Checkpoint checkpoint = io::Checkpoint::open(out.path());
    begin = checkpoint.require(name + part).begin;
  }
  std::fstream file(
      out.path() / "model.safetensors",
      std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(begin));
  const int byte = file.get();
  file.seekp(static_cast<std::streamoff>(begin));
  file.put(static_cast<char>(byte ^ 0x10));
  file.close();
  REQUIRE_THROWS_WITH(check_codes(reader, options, out.path()), Contains(name));
}

}  // namespace
}  // namespace fettle::exporter
