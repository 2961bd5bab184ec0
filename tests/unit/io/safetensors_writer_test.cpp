// SPDX-License-Identifier: Apache-2.0
#include <catch2/catch.hpp>

#include "core/error.h"
#include "fixtures.h"
#include "io/safetensors.h"

using Catch::Contains;
using fettle::InternalError;
using fettle::UserError;
using namespace fettle::io;

namespace {

const std::vector<TensorSpec> kSpecs{
    {"mask", DType::kBool, {3}},
    {"weight", DType::kF32, {2, 2}},
    {"empty", DType::kF32, {0, 5}},
    {"half", DType::kBF16, {}}};

std::vector<std::byte> numbered(std::size_t count, int first) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) {
    bytes[i] = static_cast<std::byte>(first + static_cast<int>(i));
  }
  return bytes;
}

std::unique_ptr<MemoryOutput> output(
    std::vector<std::byte>& buffer, std::uint64_t capacity = UINT64_MAX) {
  return std::make_unique<MemoryOutput>("out", buffer, capacity);
}

}  // namespace

TEST_CASE("what is written is read back, each tensor aligned to its type") {
  std::vector<std::byte> buffer;
  SafetensorsWriter writer(output(buffer), kSpecs, {{"format", "pt"}});
  writer.write("mask", numbered(3, 1));
  writer.write("weight", numbered(10, 10));
  writer.write("weight", numbered(6, 20));
  writer.write("empty", {});
  writer.write("half", numbered(2, 30));
  writer.finish();
  CHECK(writer.file_bytes() == buffer.size());

  const MemoryFile memory("out", buffer);
  const SafetensorsFile file = SafetensorsFile::parse(memory);
  CHECK(file.data_begin() % 8 == 0);
  CHECK(file.metadata() == Metadata{{"format", "pt"}});
  for (const TensorSpec& spec : kSpecs) {
    const TensorInfo* info = file.find(spec.name);
    REQUIRE(info != nullptr);
    CHECK(info->dtype == spec.dtype);
    CHECK(info->shape == spec.shape);
    CHECK(info->begin % size_of(spec.dtype) == 0);
  }
  std::vector<std::byte> weight(16);
  memory.read_at(file.find("weight")->begin, weight);
  std::vector<std::byte> expected = numbered(10, 10);
  const auto rest = numbered(6, 20);
  expected.insert(expected.end(), rest.begin(), rest.end());
  CHECK(weight == expected);
  std::vector<std::byte> mask(3);
  memory.read_at(file.find("mask")->begin, mask);
  CHECK(mask == numbered(3, 1));
}

TEST_CASE("bytes for the wrong tensor, too many or too few are our bug") {
  std::vector<std::byte> buffer;
  {
    SafetensorsWriter writer(output(buffer), kSpecs);
    CHECK_THROWS_AS(writer.write("weight", numbered(4, 0)), InternalError);
    CHECK_THROWS_AS(writer.write("mask", numbered(4, 0)), InternalError);
    writer.write("mask", numbered(3, 0));
    writer.write("weight", numbered(15, 0));
    CHECK_THROWS_AS(writer.write("weight", numbered(2, 0)), InternalError);
    CHECK_THROWS_AS(writer.finish(), InternalError);
    writer.write("weight", numbered(1, 0));
    writer.write("half", numbered(2, 0));
    CHECK_THROWS_AS(writer.write("half", numbered(1, 0)), InternalError);
    CHECK_NOTHROW(writer.finish());
  }
  const std::vector<TensorSpec> twice{
      {"a", DType::kU8, {1}}, {"a", DType::kU8, {1}}};
  CHECK_THROWS_AS(SafetensorsWriter(output(buffer), twice), InternalError);
  CHECK_THROWS_AS(
      SafetensorsWriter(output(buffer), {{"__metadata__", DType::kU8, {1}}}),
      InternalError);
}

TEST_CASE("shapes that no file can hold are refused") {
  std::vector<std::byte> buffer;
  CHECK_THROWS_WITH(
      SafetensorsWriter(output(buffer), {{"a", DType::kU8, {-1, 2}}}),
      Contains("shape [-1, 2]"));
  CHECK_THROWS_AS(
      (TensorSpec{"a", DType::kF32, {INT64_MAX}}.bytes()), UserError);
}

TEST_CASE("a disk too small for the file fails at its first byte") {
  std::vector<std::byte> buffer;
  CHECK_THROWS_WITH(
      SafetensorsWriter(output(buffer, 100), {{"a", DType::kU8, {4096}}}),
      Contains("disk full: needs 4."));
  CHECK(buffer.empty());
}
