// SPDX-License-Identifier: Apache-2.0
#include "artifact/tensor_file.h"

#include <catch2/catch.hpp>
#include <fstream>
#include <limits>

#include "core/error.h"
#include "tiny_model.h"

namespace fettle::artifact {
namespace {

using Catch::Matchers::Contains;

TEST_CASE("Every type of tensor comes back as it was saved") {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "a.safetensors";
  TensorFile file;
  file.metadata = {{"kind", "test"}};
  for (const at::ScalarType type :
       {at::kBool,
        at::kByte,
        at::kChar,
        at::kShort,
        at::kInt,
        at::kLong,
        at::kBFloat16,
        at::kHalf,
        at::kFloat,
        at::kDouble}) {
    file.tensors[c10::toString(type)] = at::arange(6).reshape({2, 3}).to(type);
  }
  file.tensors["empty"] = at::zeros({0, 4});
  file.tensors["transposed"] = at::arange(6).reshape({2, 3}).t();
  save_tensors(path, file);

  const TensorFile loaded = load_tensors(path, {.finite = true});
  REQUIRE(loaded.metadata == file.metadata);
  REQUIRE(loaded.tensors.size() == file.tensors.size());
  for (const auto& [name, tensor] : file.tensors) {
    CAPTURE(name);
    REQUIRE(loaded.tensors.at(name).scalar_type() == tensor.scalar_type());
    REQUIRE(loaded.tensors.at(name).equal(tensor));
  }
}

TEST_CASE("Values that are not finite are refused where that was asked for") {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "a.safetensors";
  const float bad = GENERATE(
      std::numeric_limits<float>::quiet_NaN(),
      std::numeric_limits<float>::infinity());
  save_tensors(path, {{{"w", at::tensor({1.0f, bad})}}, {}});
  REQUIRE_NOTHROW(load_tensors(path));
  REQUIRE_THROWS_WITH(
      load_tensors(path, {.finite = true}), Contains("w: expected finite"));
}

TEST_CASE("Types without a stored form are refused both ways") {
  const testing::TemporaryFolder folder;
  const auto path = folder.path() / "a.safetensors";
  REQUIRE_THROWS_AS(
      save_tensors(path, {{{"z", at::zeros({1}, at::kComplexDouble)}}, {}}),
      UserError);
  REQUIRE_THROWS_WITH(
      scalar_type(io::DType::kF8E4M3, "w"), Contains("F8_E4M3"));
}

}  // namespace
}  // namespace fettle::artifact
