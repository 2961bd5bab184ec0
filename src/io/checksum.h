// SPDX-License-Identifier: Apache-2.0
// XXH3 checksums (128 bits, as 32 hexadecimal digits): they identify files and
// find damage, and are no defence against forgery.
// Source: https://github.com/Cyan4973/xxHash, XXH3_128bits, canonical form.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "io/checkpoint.h"

namespace fettle::io {

class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  std::string digest() const;  // of all so far; may be asked more than once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string hash_bytes(std::span<const std::byte> bytes);

// XXH3_64bits: the checksum within one tensor.
std::uint64_t checksum64(std::span<const std::byte> bytes);

// Streams a file. Throws UserError when it can't be read.
std::string hash_file(const std::filesystem::path& path);

// A fingerprint of a model folder: covers config.json, and of each shard (by
// name) its size, its header, and the first and last 64 KiB of each tensor.
// Another training of the same shapes gives another fingerprint; a change that
// lies wholly in the unread middle of a tensor does not. Reads at most 128 KiB
// a tensor. Throws UserError when a file can't be read.
std::string fingerprint(
    const Checkpoint& checkpoint, const std::filesystem::path& config);

}  // namespace fettle::io
