// SPDX-License-Identifier: Apache-2.0
#include "io/checksum.h"

#include <catch2/catch.hpp>

#include "core/error.h"
#include "fixtures.h"
#include "io/checkpoint_writer.h"

using fettle::UserError;
using namespace fettle::io;

TEST_CASE("checksums are XXH3's published 128 bits") {
  // XXH3_128bits of no bytes, seed 0, from the xxHash test vectors.
  CHECK(hash_bytes({}) == "99aa06d3014798d86001c324468d497f");
}

TEST_CASE("a file, its bytes and its pieces have one checksum") {
  const TemporaryFolder folder;
  std::string text(3'000'001, '\0');
  for (std::size_t i = 0; i < text.size(); ++i) {
    text[i] = static_cast<char>(i * i >> 3);
  }
  write_text(folder / "f", text);
  const std::string whole = hash_bytes(to_bytes(text));
  CHECK(whole.size() == 32);
  CHECK(hash_file(folder / "f") == whole);
  Hasher hasher;
  hasher.update(std::string_view(text).substr(0, 1000));
  CHECK(hasher.digest() != whole);
  Hasher moved = std::move(hasher);
  moved.update(std::string_view(text).substr(1000));
  CHECK(moved.digest() == whole);
  text[1'500'000] ^= 1;
  CHECK(hash_bytes(to_bytes(text)) != whole);
  CHECK_THROWS_AS(hash_file(folder / "none"), UserError);
}

namespace {

constexpr std::int64_t kBytes = 200'000;  // more than two samples of 64 KiB

std::string fingerprint_of(
    const std::vector<std::byte>& weights,
    const std::string& config = "{}",
    const std::string& name = "w") {
  const TemporaryFolder folder;
  write_text(folder / "config.json", config);
  CheckpointWriter writer(
      folder.path(), {{name, DType::kU8, {kBytes}}, {"e", DType::kU8, {0}}});
  writer.write(name, weights);
  writer.finish();
  return fingerprint(Checkpoint::open(folder.path()), folder / "config.json");
}

}  // namespace

TEST_CASE("a fingerprint follows config, names and sampled weights") {
  std::vector<std::byte> weights(kBytes);
  const std::string original = fingerprint_of(weights);
  CHECK(fingerprint_of(weights) == original);
  CHECK(fingerprint_of(weights, "{ }") != original);
  CHECK(fingerprint_of(weights, "{}", "v") != original);
  const auto changed_at = [&](std::size_t at) {
    std::vector<std::byte> changed = weights;
    changed[at] = std::byte{1};
    return fingerprint_of(changed);
  };
  CHECK(changed_at(0) != original);
  CHECK(changed_at(65'535) != original);
  CHECK(changed_at(kBytes - 65'536) != original);
  CHECK(changed_at(kBytes - 1) != original);
  // The promise's other half: the middle is not read.
  CHECK(changed_at(100'000) == original);
}

TEST_CASE("a fingerprint needs the config file") {
  const TemporaryFolder folder;
  CheckpointWriter writer(folder.path(), {});
  writer.finish();
  CHECK_THROWS_AS(
      fingerprint(Checkpoint::open(folder.path()), folder / "config.json"),
      UserError);
}
