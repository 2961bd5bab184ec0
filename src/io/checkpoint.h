// SPDX-License-Identifier: Apache-2.0
// The weights of a model folder, whatever shards they lie in. Only headers are
// held; a tensor's bytes are read when asked for, into the caller's buffer, by
// any number of threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "io/safetensors.h"

namespace fettle::io {

// Files of a model with packed weights begin with this: a loader that knows
// nothing of these then finds no weights, where it would otherwise make up
// those whose names it misses.
inline constexpr std::string_view kPackedStem = "packed";

// STEM.safetensors.index.json, which tells the shard of each tensor.
std::string index_name(std::string_view stem);

struct Shard {
  std::string file_name;  // within the folder
  std::unique_ptr<InputFile> file;
  SafetensorsFile header;
};

class Checkpoint {
 public:
  // Opens FOLDER/model.safetensors, else the shards that
  // FOLDER/model.safetensors.index.json names, or the same of the stem
  // "packed", and checks every header. A missing shard, a shard outside the
  // folder, a tensor that the index places where it is not, or that two shards
  // hold, is a UserError.
  static Checkpoint open(const std::filesystem::path& folder);
  // Opens the one file `file_name` of `folder`, such as an adapter.
  static Checkpoint open(
      const std::filesystem::path& folder, const std::string& file_name);

  const TensorInfo* find(std::string_view name) const;  // null when absent
  // Throws UserError when there is no tensor of that name.
  const TensorInfo& require(std::string_view name) const;
  std::vector<std::string> names() const;  // sorted

  // Reads a whole tensor; `into` must have exactly its size (InternalError).
  void read(std::string_view name, std::span<std::byte> into) const;
  // Fills `into` from `offset` bytes into the tensor; the range must lie in
  // the tensor (InternalError).
  void read_range(
      std::string_view name,
      std::uint64_t offset,
      std::span<std::byte> into) const;

  std::uint64_t total_bytes() const;  // of all tensors, headers excluded
  const std::filesystem::path& folder() const { return folder_; }
  const std::vector<Shard>& shards() const { return shards_; }  // by name

 private:
  struct Place {
    std::size_t shard = 0;
    std::size_t tensor = 0;  // in the shard's order
  };

  Checkpoint(
      std::filesystem::path folder, const std::vector<std::string>& file_names);
  const Place& place(std::string_view name) const;

  std::filesystem::path folder_;
  std::vector<Shard> shards_;
  std::map<std::string, Place, std::less<>> places_;
};

}  // namespace fettle::io
