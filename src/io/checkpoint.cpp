// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.h"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "core/error.h"
#include "core/json.h"

namespace fettle::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStage = "checkpoint";
constexpr const char* kModel = "model";

// Tensor name to shard file name.
using WeightMap = std::map<std::string, std::string>;

bool is_plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
}

WeightMap read_index(const fs::path& path) {
  const Json json = read_json(path, kStage);
  const JsonObject map =
      JsonObject(json, std::string(kStage), path.string()).object("weight_map");
  WeightMap shards;
  for (const auto& [tensor, value] : map.json().items()) {
    const std::string shard = map.string(tensor);
    if (!is_plain_file_name(shard)) {
      map.refuse(
          tensor,
          fmt::format(
              "names shard '{}', expected a file name within the folder",
              shard));
    }
    shards.emplace(tensor, shard);
  }
  return shards;
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

Shard open_shard(const fs::path& folder, const std::string& file_name) {
  const fs::path path = folder / file_name;
  if (!is_there(path)) {
    throw UserError(
        kStage, path.string(), "is missing. Perhaps an incomplete download?");
  }
  auto file = open_file(path);
  SafetensorsFile header = SafetensorsFile::parse(*file);
  return {file_name, std::move(file), std::move(header)};
}

std::string single_name(std::string_view stem) {
  return fmt::format("{}.safetensors", stem);
}

bool holds(const fs::path& folder, std::string_view stem) {
  return is_there(folder / single_name(stem)) ||
         is_there(folder / index_name(stem));
}

}  // namespace

std::string index_name(std::string_view stem) {
  return fmt::format("{}.safetensors.index.json", stem);
}

Checkpoint Checkpoint::open(const fs::path& folder) {
  const bool packed = holds(folder, kPackedStem);
  if (holds(folder, kModel) == packed) {
    throw UserError(
        kStage,
        folder.string(),
        fmt::format(
            "expected a model folder with {0}.safetensors or "
            "{0}.safetensors.index.json, found {1}",
            kModel,
            packed ? "packed weights beside them" : "neither"));
  }
  const std::string stem(packed ? kPackedStem : kModel);
  if (is_there(folder / single_name(stem))) {
    return open(folder, single_name(stem));
  }
  const fs::path index = folder / index_name(stem);
  const WeightMap placed = read_index(index);
  std::set<std::string> names;
  for (const auto& [tensor, shard] : placed) names.insert(shard);
  Checkpoint checkpoint(folder, {names.begin(), names.end()});
  for (const auto& [tensor, shard] : placed) {
    const auto found = checkpoint.places_.find(tensor);
    if (found == checkpoint.places_.end() ||
        checkpoint.shards_[found->second.shard].file_name != shard) {
      throw UserError(
          kStage,
          (folder / shard).string(),
          fmt::format(
              "expected tensor '{}', as {} says, but it is not there",
              tensor,
              index_name(stem)));
    }
  }
  return checkpoint;
}

Checkpoint Checkpoint::open(
    const fs::path& folder, const std::string& file_name) {
  return Checkpoint(folder, {file_name});
}

Checkpoint::Checkpoint(
    fs::path folder, const std::vector<std::string>& file_names)
    : folder_(std::move(folder)) {
  for (const std::string& file_name : file_names) {
    shards_.push_back(open_shard(folder_, file_name));
    const std::size_t shard = shards_.size() - 1;
    const auto& tensors = shards_.back().header.tensors();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto [place, added] =
          places_.emplace(tensors[i].name, Place{shard, i});
      if (!added) {
        throw UserError(
            kStage,
            folder_.string(),
            fmt::format(
                "tensor '{}' lies in both {} and {}, expected one",
                tensors[i].name,
                shards_[place->second.shard].file_name,
                file_name));
      }
    }
  }
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) return nullptr;
  const Place& place = found->second;
  return &shards_[place.shard].header.tensors()[place.tensor];
}

const Checkpoint::Place& Checkpoint::place(std::string_view name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) {
    throw UserError(
        kStage,
        folder_.string(),
        fmt::format("tensor '{}' is missing from the weights", name));
  }
  return found->second;
}

const TensorInfo& Checkpoint::require(std::string_view name) const {
  const Place& found = place(name);
  return shards_[found.shard].header.tensors()[found.tensor];
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> result;
  result.reserve(places_.size());
  for (const auto& [name, unused] : places_) result.push_back(name);
  return result;
}

void Checkpoint::read(std::string_view name, std::span<std::byte> into) const {
  FETTLE_ASSERT(into.size() == require(name).bytes());
  read_range(name, 0, into);
}

void Checkpoint::read_range(
    std::string_view name,
    std::uint64_t offset,
    std::span<std::byte> into) const {
  const Shard& shard = shards_[place(name).shard];
  const TensorInfo& info = require(name);
  FETTLE_ASSERT(offset <= info.bytes() && into.size() <= info.bytes() - offset);
  shard.file->read_at(info.begin + offset, into);
}

std::uint64_t Checkpoint::total_bytes() const {
  std::uint64_t total = 0;
  for (const Shard& shard : shards_) {
    for (const TensorInfo& info : shard.header.tensors()) total += info.bytes();
  }
  return total;
}

}  // namespace fettle::io
