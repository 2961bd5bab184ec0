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
#include <unordered_map>
#include <vector>

#include "io/file.h"
#include "io/safetensors.h"

namespace fettle::io {

// Files of a model with packed weights begin with this: a loader that knows
// nothing of these then finds no weights, where it would otherwise make up
// those whose names it misses.
inline constexpr std::string_view kPackedStem = "packed";

// STEM.safetensors.index.json, which names the shard of each tensor.
std::string index_name(std::string_view stem);

struct Shard {
  std::string file_name;  // within the folder, perhaps in a folder of it
  std::unique_ptr<InputFile> file;
  SafetensorsFile header;
};

class Checkpoint {
 public:
  // Opens FOLDER/model.safetensors, else the shards that
  // FOLDER/model.safetensors.index.json names, or the same of the stem
  // "packed", and checks every header. Where several shards hold a tensor, the
  // index says which one counts. A missing shard, a shard outside the folder, a
  // tensor that lies in another shard than the index says, or in several of
  // which the index names none, is a UserError; one that lies nowhere is one
  // only when it is asked for.
  static Checkpoint open(const std::filesystem::path& folder);
  // Opens the one file `file_name` of `folder`, such as an adapter.
  static Checkpoint open(
      const std::filesystem::path& folder, const std::string& file_name);

  const TensorInfo* find(std::string_view name) const;  // null when absent
  // Throws UserError when there is no tensor of that name.
  const TensorInfo& require(std::string_view name) const;
  std::size_t size() const { return places_.size(); }
  std::vector<std::string> names() const;          // sorted
  std::vector<const TensorInfo*> tensors() const;  // by name
  // "is missing" and, for a name that find() doesn't know, what may be the
  // cause: what the index says of it, or another tensor whose name ends in it.
  std::string why_missing(std::string_view name) const;

  // Reads a whole tensor; `into` must have exactly its size (InternalError).
  void read(std::string_view name, std::span<std::byte> into) const;
  // Fills `into` from `offset` bytes into the tensor; the range must lie in
  // the tensor (InternalError).
  void read_range(
      std::string_view name,
      std::uint64_t offset,
      std::span<std::byte> into) const;

  // Bytes of all tensors that count, headers excluded.
  std::uint64_t total_bytes() const;
  const std::filesystem::path& folder() const { return folder_; }
  const std::vector<Shard>& shards() const { return shards_; }  // by name

 private:
  struct Place {
    std::uint32_t shard = 0;
    std::uint32_t tensor = 0;  // in the shard's order
  };

  struct Index;  // STEM.safetensors.index.json

  Checkpoint(std::filesystem::path folder, const Index& index);
  static Index read_index(
      const std::filesystem::path& folder, std::string_view stem);
  void open_shards(const Index& index);
  void check_index(const Index& index);
  const Place& place(std::string_view name) const;

  std::filesystem::path folder_;
  std::vector<Shard> shards_;
  // By names that lie in the shards' headers.
  std::unordered_map<std::string_view, Place> places_;
  // Tensors that the index names and no shard holds, with their shard's file.
  std::map<std::string, std::string, std::less<>> absent_;
  std::string index_name_;  // empty: there is none
};

}  // namespace fettle::io
