// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.h"

#include <catch2/catch.hpp>
#include <thread>

#include "core/error.h"
#include "fixtures.h"
#include "io/checkpoint_writer.h"

using Catch::Contains;
using fettle::InternalError;
using fettle::UserError;
using namespace fettle::io;

namespace {

// A shard with one tensor of four bytes 0, 1, 2, 3.
std::string shard(const std::string& tensor) {
  return safetensors_text(
      R"({")" + tensor + R"(":{"dtype":"U8","shape":[4],)" +
          R"("data_offsets":[0,4]}})",
      4);
}

void write_index(const TemporaryFolder& folder, const std::string& map) {
  write_text(
      folder / "model.safetensors.index.json", R"({"weight_map":)" + map + "}");
}

}  // namespace

TEST_CASE("a folder with one file is a checkpoint") {
  const TemporaryFolder folder;
  write_text(folder / "model.safetensors", shard("a"));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.names() == std::vector<std::string>{"a"});
  CHECK(checkpoint.total_bytes() == 4);
  CHECK(checkpoint.folder() == folder.path());
  CHECK(checkpoint.require("a").shape == std::vector<std::int64_t>{4});
  CHECK(checkpoint.find("a") == &checkpoint.require("a"));
  CHECK(checkpoint.find("b") == nullptr);
  CHECK_THROWS_WITH(checkpoint.require("b"), Contains("tensor 'b' is missing"));

  std::vector<std::byte> bytes(4);
  checkpoint.read("a", bytes);
  CHECK(bytes == to_bytes(std::string("\0\1\2\3", 4)));
  std::vector<std::byte> part(2);
  checkpoint.read_range("a", 1, part);
  CHECK(part == to_bytes("\1\2"));
  CHECK_THROWS_AS(checkpoint.read("a", part), InternalError);
  CHECK_THROWS_AS(checkpoint.read_range("a", 3, part), InternalError);
  CHECK_THROWS_AS(checkpoint.read_range("a", 5, {}), InternalError);
  CHECK_THROWS_AS(checkpoint.read("b", part), UserError);
}

TEST_CASE("a named file of a folder is opened") {
  const TemporaryFolder folder;
  write_text(folder / "adapter.safetensors", shard("delta"));
  CHECK(
      Checkpoint::open(folder.path(), "adapter.safetensors").find("delta") !=
      nullptr);
  CHECK_THROWS_WITH(
      Checkpoint::open(folder.path(), "other.safetensors"),
      Contains("is missing. Perhaps an incomplete download?"));
}

TEST_CASE("weights that only Fettle reads have names of their own") {
  const TemporaryFolder folder;
  const char* const stem = GENERATE("packed", "fettle");
  write_text(folder / (std::string(stem) + ".safetensors"), shard("a"));
  CHECK(Checkpoint::open(folder.path()).find("a") != nullptr);
  write_text(folder / "model.safetensors", shard("a"));
  CHECK_THROWS_WITH(
      Checkpoint::open(folder.path()),
      Contains("weights of two models: model.safetensors and ") &&
          Contains(stem));
}

TEST_CASE("an index and its shards must agree") {
  const TemporaryFolder folder;
  write_text(folder / "1.safetensors", shard("a"));
  write_text(folder / "2.safetensors", shard("b"));
  const auto open = [&] { return Checkpoint::open(folder.path()); };

  write_index(folder, R"({"a":"1.safetensors","b":"2.safetensors"})");
  CHECK(open().names() == std::vector<std::string>{"a", "b"});
  CHECK(open().shards().size() == 2);

  write_index(folder, R"({"a":"1.safetensors","b":"3.safetensors"})");
  CHECK_THROWS_WITH(open(), Contains("3.safetensors: is missing"));
  write_index(folder, R"({"a":"2.safetensors","b":"1.safetensors"})");
  CHECK_THROWS_WITH(
      open(), Contains("expected tensor 'a'") && Contains("lies in 1."));

  write_text(folder / "2.safetensors", shard("b").substr(0, 60));
  CHECK_THROWS_WITH(
      open(), Contains("2.safetensors: ") && Contains("incomplete download"));
}

TEST_CASE("of a tensor in several shards the index says which counts") {
  const TemporaryFolder folder;
  const std::string entry = R"(:{"dtype":"U8","shape":[4],"data_offsets":)";
  const auto both = [&](const char* last) {
    return safetensors_text(
               R"({"a")" + entry + R"([0,4]},"b")" + entry + "[4,8]}}", 4) +
           last;
  };
  write_text(folder / "1.safetensors", both("ABCD"));
  write_text(folder / "2.safetensors", both("EFGH"));
  const auto b_of = [&](const char* map) {
    write_index(folder, map);
    const Checkpoint checkpoint = Checkpoint::open(folder.path());
    CHECK(checkpoint.size() == 2);
    CHECK(checkpoint.total_bytes() == 8);
    std::vector<std::byte> bytes(4);
    checkpoint.read("b", bytes);
    return bytes;
  };
  CHECK(
      b_of(R"({"a":"1.safetensors","b":"2.safetensors"})") == to_bytes("EFGH"));
  CHECK(
      b_of(R"({"a":"2.safetensors","b":"1.safetensors"})") == to_bytes("ABCD"));
  write_index(folder, R"({"a":"1.safetensors","c":"2.safetensors"})");
  CHECK_THROWS_WITH(
      Checkpoint::open(folder.path()),
      Contains("'b' lies in both 1.safetensors and 2.safetensors"));
}

TEST_CASE("a tensor that no shard has is refused when it is asked for") {
  const TemporaryFolder folder;
  write_text(folder / "1.safetensors", shard("a"));
  write_index(folder, R"({"a":"1.safetensors","c":"1.safetensors"})");
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  CHECK(checkpoint.find("c") == nullptr);
  CHECK_THROWS_WITH(
      checkpoint.require("c"),
      Contains("'c' is missing: model.safetensors.index.json places it in "
               "1.safetensors"));
}

TEST_CASE("a missing tensor's near names are told") {
  const TemporaryFolder folder;
  write_text(folder / "model.safetensors", shard("module.model.x.weight"));
  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  CHECK_THAT(
      checkpoint.why_missing("model.x.weight"),
      Contains("but 'module.model.x.weight' is there"));
  CHECK_THAT(
      checkpoint.why_missing("other.x.weight"),
      Contains("but 'module.model.x.weight' is there"));
  CHECK_THAT(
      checkpoint.why_missing("model.y.weight"),
      Contains("Perhaps an incomplete download?"));
}

TEST_CASE("shards may lie in a folder of the folder") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "sub");
  write_text(folder / "sub/1.safetensors", shard("a"));
  write_index(folder, R"({"a":"sub/1.safetensors"})");
  CHECK(Checkpoint::open(folder.path()).find("a") != nullptr);
}

TEST_CASE("shards outside the folder are refused") {
  const TemporaryFolder folder;
  write_text(folder / "1.safetensors", shard("a"));
  for (const char* name :
       {"../1.safetensors",
        "/etc/passwd",
        "sub/../../1.safetensors",
        "sub/",
        "./1.safetensors",
        "..",
        ".",
        "",
        "..\\\\1.safetensors",
        "1.safetensors\\u0000"}) {
    write_index(folder, std::string(R"({"a":")") + name + R"("})");
    CHECK_THROWS_WITH(
        Checkpoint::open(folder.path()),
        Contains("expected a file name within the folder"));
  }
}

TEST_CASE("folders without weights and broken indexes are refused") {
  const TemporaryFolder folder;
  const auto open = [&] { return Checkpoint::open(folder.path()); };
  CHECK_THROWS_WITH(open(), Contains("found neither"));
  CHECK_THROWS_WITH(
      Checkpoint::open(folder / "none"), Contains("found neither"));
  write_index(folder, "3");
  CHECK_THROWS_WITH(open(), Contains("expected a JSON object"));
  write_index(folder, R"({"a":1})");
  CHECK_THROWS_WITH(open(), Contains("'a' must be a string"));
  write_index(folder, R"({"a":"1.safetensors","a":"2.safetensors"})");
  CHECK_THROWS_WITH(open(), Contains("duplicate JSON key 'a'"));
  write_index(folder, std::string(10000, '[') + std::string(10000, ']'));
  CHECK_THROWS_WITH(open(), Contains("nested deeper"));
  write_text(folder / "model.safetensors.index.json", "{}");
  CHECK_THROWS_WITH(open(), Contains("'weight_map' is missing"));
}

TEST_CASE("threads read one checkpoint at once") {
  const TemporaryFolder folder;
  constexpr int kTensors = 16;
  constexpr std::int64_t kBytes = 4096;
  std::vector<TensorSpec> specs;
  for (int i = 0; i < kTensors; ++i) {
    specs.push_back({std::to_string(i), DType::kU8, {kBytes}});
  }
  CheckpointWriter writer(
      folder.path(), specs, {.max_shard_bytes = 5 * kBytes});
  for (int i = 0; i < kTensors; ++i) {
    writer.write(
        specs[static_cast<std::size_t>(i)].name,
        std::vector<std::byte>(kBytes, static_cast<std::byte>(i)));
  }
  writer.finish();

  const Checkpoint checkpoint = Checkpoint::open(folder.path());
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::byte> bytes(kBytes);
      for (int round = 0; round < 20 * kTensors; ++round) {
        const int i = (round * 7 + static_cast<int>(t)) % kTensors;
        checkpoint.read(std::to_string(i), bytes);
        for (const std::byte b : bytes) {
          if (b != static_cast<std::byte>(i)) ++wrong[t];
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}
