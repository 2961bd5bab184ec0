// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_writer.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "core/json.h"
#include "fixtures.h"
#include "io/checkpoint.h"

using Catch::Contains;
using fettle::InternalError;
using namespace fettle::io;

namespace {

std::vector<TensorSpec> specs_of(const std::vector<std::int64_t>& sizes) {
  std::vector<TensorSpec> specs;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    specs.push_back({"t" + std::to_string(i), DType::kU8, {sizes[i]}});
  }
  return specs;
}

std::vector<std::byte> content(std::size_t tensor, std::int64_t size) {
  return std::vector<std::byte>(
      static_cast<std::size_t>(size), static_cast<std::byte>(tensor + 1));
}

void write_all(
    CheckpointWriter& writer, const std::vector<std::int64_t>& sizes) {
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    writer.write("t" + std::to_string(i), content(i, sizes[i]));
  }
  writer.finish();
}

}  // namespace

TEST_CASE("weights that fit one shard make one file and no index") {
  const TemporaryFolder folder;
  const std::vector<std::int64_t> sizes{3, 0, 7};
  CheckpointWriter writer(folder.path(), specs_of(sizes));
  CHECK(writer.total_bytes() == 10);
  write_all(writer, sizes);
  CHECK(writer.shard_count() == 1);
  CHECK(std::filesystem::exists(folder / "model.safetensors"));
  CHECK_FALSE(std::filesystem::exists(folder / "model.safetensors.index.json"));
  CHECK(Checkpoint::open(folder.path()).total_bytes() == 10);
}

TEST_CASE("shards hold at most what is allowed, and all is read back") {
  // 4+6 | 1+0 (25 doesn't fit) | 25 alone, being larger than a shard | 0+10
  const std::vector<std::int64_t> sizes{4, 6, 1, 0, 25, 0, 10};
  const TemporaryFolder folder;
  CheckpointWriter writer(
      folder.path(), specs_of(sizes), {.max_shard_bytes = 10});
  write_all(writer, sizes);
  CHECK(writer.shard_count() == 4);

  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  REQUIRE(checkpoint.shards().size() == 4);
  CHECK(checkpoint.shards()[1].file_name == "model-00002-of-00004.safetensors");
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(sizes[i]));
    checkpoint.read("t" + std::to_string(i), bytes);
    CHECK(bytes == content(i, sizes[i]));
  }
  const fettle::Json index =
      fettle::read_json(folder / "model.safetensors.index.json", "test");
  CHECK(index["metadata"]["total_size"] == 46);
  CHECK(index["weight_map"].size() == 7);
  CHECK(index["weight_map"]["t5"] == "model-00003-of-00004.safetensors");
}

TEST_CASE("a checkpoint without weights is a valid one") {
  const TemporaryFolder folder;
  CheckpointWriter writer(folder.path(), {});
  writer.finish();
  CHECK(Checkpoint::open(folder.path()).names().empty());
}

TEST_CASE("tensors out of order, twice or left out are our bug") {
  const TemporaryFolder folder;
  {
    CheckpointWriter writer(
        folder.path(), specs_of({4, 4}), {.max_shard_bytes = 4});
    CHECK_THROWS_AS(writer.write("t1", content(1, 4)), InternalError);
    writer.write("t0", content(0, 4));
    CHECK_THROWS_AS(writer.finish(), InternalError);
    CHECK_THROWS_AS(writer.write("t0", content(0, 4)), InternalError);
    writer.write("t1", content(1, 3));
    CHECK_THROWS_AS(writer.finish(), InternalError);
  }
  const std::vector<TensorSpec> twice{
      {"a", DType::kU8, {4}}, {"a", DType::kU8, {4}}};
  CHECK_THROWS_AS(
      CheckpointWriter(folder.path(), twice, {.max_shard_bytes = 4}),
      InternalError);
}

TEST_CASE("a disk that fills in the second shard leaves no index") {
  const TemporaryFolder folder;
  int files = 0;
  std::vector<std::byte> buffer;
  const auto create =
      [&](const std::filesystem::path& path) -> std::unique_ptr<OutputFile> {
    if (++files == 1) return create_file(path);
    return std::make_unique<MemoryOutput>(path.string(), buffer, 64);
  };
  CheckpointWriter writer(
      folder.path(),
      specs_of({4, 4}),
      {.max_shard_bytes = 4, .create = create});
  writer.write("t0", content(0, 4));
  CHECK_THROWS_WITH(
      writer.write("t1", content(1, 4)),
      Contains("model-00002-of-00002.safetensors: disk full: needs"));
  CHECK_THROWS_WITH(Checkpoint::open(folder.path()), Contains("found neither"));
}
