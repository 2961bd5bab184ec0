// SPDX-License-Identifier: Apache-2.0
#include "export/target.h"

#include <catch2/catch.hpp>
#include <limits>

#include "core/error.h"
#include "packed_tiny_model.h"

namespace fettle::exporter {
namespace {

using Catch::Matchers::Contains;
using namespace fettle::testing;

TEST_CASE("Target names are known or refused") {
  for (const std::string& name : target_names()) {
    REQUIRE_NOTHROW(parse_target(name));
  }
  REQUIRE_THROWS_WITH(
      parse_target("mlx"), Contains("known are fettle, hf, gguf, vllm"));
  REQUIRE_FALSE(wants_uniform(Target::kFettle));
  REQUIRE(wants_uniform(Target::kVllm));
}

TEST_CASE("The bytes told beforehand are those of the export") {
  const std::string family =
      GENERATE("qwen3_moe", "qwen2_moe", "mixtral", "olmoe", "deepseek_v2");
  SECTION("plain") {
    const Format format =
        GENERATE(Format::kHf, Format::kHfPadded, Format::kRagged);
    TinyModelOptions options{.family = family};
    options.type = GENERATE(at::kFloat, at::kBFloat16);
    const TinyModel tiny(options);
    const model::ModelReader reader(tiny.path());
    const TemporaryFolder out;
    const ExportOptions wanted{.format = format};
    REQUIRE(
        exported_bytes(forms_of(reader), wanted) ==
        export_model(reader, wanted, out.path()).after.bytes);
  }
  SECTION("packed") {
    const Format format = GENERATE(
        Format::kHfPadded,
        Format::kRagged,
        Format::kCompressedTensors,
        Format::kGptq,
        Format::kGguf);
    const PackedTinyModel tiny(wide(family), grids(ints(4, 32), ints(8, 32)));
    const model::ModelReader reader(tiny.path());
    const TemporaryFolder out;
    const ExportOptions wanted{.format = format};
    REQUIRE(
        exported_bytes(forms_of(reader), wanted) ==
        export_model(reader, wanted, out.path()).after.bytes);
  }
}

TEST_CASE("Formats of codes name a plain weight that is not finite") {
  const Format format =
      GENERATE(Format::kCompressedTensors, Format::kGptq, Format::kGguf);
  TinyModelOptions options = wide("qwen3_moe");
  options.edit = [](const model::WeightId& id, at::Tensor tensor) {
    if (id.role == model::Role::kFinalNorm) {
      tensor[3] = std::numeric_limits<float>::infinity();
    }
    return tensor;
  };
  const PackedTinyModel tiny(options, grids(ints(4, 32), ints(8, 32)));
  const model::ModelReader reader(tiny.path());
  const TemporaryFolder out;
  REQUIRE_THROWS_WITH(
      export_model(reader, {.format = format}, out.path()),
      Contains("model.norm.weight: expected finite values"));
  REQUIRE(std::filesystem::is_empty(out.path()));
}

TEST_CASE("Codes of odd widths are filled up to what loaders run") {
  const std::int64_t group = GENERATE(0, 16);
  TinyModelOptions options = wide("qwen3_moe");
  options.widths = {{31, 30, 9, 2}, {5, 31, 1, 0}};
  auto grid = ints(4, group == 0 ? 1 << 20 : group);
  const PackedTinyModel tiny(options, grids(grid, ints(8, 16)));
  const model::ModelReader reader(tiny.path());
  const TemporaryFolder out;
  const auto result =
      export_model(reader, {.format = Format::kCompressedTensors}, out.path());
  REQUIRE(result.after.min_width == 32);
  REQUIRE(result.after.max_width == 32);
}

}  // namespace
}  // namespace fettle::exporter
