// SPDX-License-Identifier: Apache-2.0
#include "io/checksum.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <new>
#include <vector>

#include "core/error.h"
#include "io/file.h"

namespace fettle::io {
namespace {

constexpr std::uint64_t kChunk = 1 << 20;
constexpr std::uint64_t kSample = 64 << 10;

void hash_range(
    Hasher& hasher,
    const InputFile& file,
    std::uint64_t begin,
    std::uint64_t end) {
  std::vector<std::byte> buffer(std::min(kChunk, end - begin));
  while (begin < end) {
    const auto piece =
        std::span(buffer).first(std::min<std::uint64_t>(kChunk, end - begin));
    file.read_at(begin, piece);
    hasher.update(piece);
    begin += piece.size();
  }
}

// Sizes go in before what they measure, so that no two inputs run together.
void hash_size(Hasher& hasher, std::uint64_t size) {
  hasher.update(fmt::format("{};", size));
}

}  // namespace

struct Hasher::State {
  State() : xxh(XXH3_createState()) {
    if (xxh == nullptr) throw std::bad_alloc();
    XXH3_128bits_reset(xxh);
  }
  ~State() { XXH3_freeState(xxh); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  XXH3_state_t* xxh;
};

Hasher::Hasher() : state_(std::make_unique<State>()) {}
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::update(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
}

void Hasher::update(std::string_view text) {
  update(std::as_bytes(std::span(text)));
}

std::string Hasher::digest() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state_->xxh));
  return fmt::format("{:02x}", fmt::join(canonical.digest, ""));
}

std::string hash_bytes(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.update(bytes);
  return hasher.digest();
}

std::uint64_t checksum64(std::span<const std::byte> bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

std::string hash_file(const std::filesystem::path& path) {
  const auto file = open_file(path);
  Hasher hasher;
  hash_range(hasher, *file, 0, file->size());
  return hasher.digest();
}

std::string fingerprint(
    const Checkpoint& checkpoint, const std::filesystem::path& config) {
  Hasher hasher;
  const auto config_file = open_file(config);
  hash_size(hasher, config_file->size());
  hash_range(hasher, *config_file, 0, config_file->size());
  for (const Shard& shard : checkpoint.shards()) {
    hash_size(hasher, shard.file->size());
    hash_range(hasher, *shard.file, 0, shard.header.data_begin());
    for (const TensorInfo& info : shard.header.tensors()) {
      const std::uint64_t head = std::min(info.end, info.begin + kSample);
      const std::uint64_t tail =
          std::max(head, info.end - std::min(info.bytes(), kSample));
      hash_range(hasher, *shard.file, info.begin, head);
      hash_range(hasher, *shard.file, tail, info.end);
    }
  }
  return hasher.digest();
}

}  // namespace fettle::io
