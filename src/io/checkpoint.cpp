// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/json_members.h"
#include "core/text_file.h"
#include "io/checkpoint_writer.h"

namespace fettle::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStage = "checkpoint";
constexpr std::string_view kMap = "weight_map";
constexpr std::string_view kModel = "model";

// Whether `name` is a path inside the folder, perhaps in one of its folders.
bool is_inner_path(const std::string& name) {
  if (name.empty() ||
      name.find_first_of(std::string_view("\\\0", 2)) != std::string::npos) {
    return false;
  }
  const fs::path path(name);
  return path.is_relative() && path.has_filename() &&
         std::ranges::none_of(path, [](const fs::path& part) {
           return part.empty() || part == "." || part == "..";
         });
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

// The stem of the weights in `folder`; several or none are refused.
std::string stem_of(const fs::path& folder) {
  std::vector<std::string_view> found;
  for (const std::string_view stem : {kModel, kPackedStem, kOwnStem}) {
    if (holds(folder, stem)) found.push_back(stem);
  }
  if (found.size() == 1) return std::string(found.front());
  throw UserError(
      kStage,
      folder.string(),
      fmt::format(
          "expected a model folder with {0}.safetensors or "
          "{0}.safetensors.index.json, found {1}",
          kModel,
          found.empty() ? "neither"
                        : fmt::format(
                              "weights of two models: {0}.safetensors and "
                              "{1}.safetensors",
                              found[0],
                              found[1])));
}

}  // namespace

// Which shard each tensor lies in; shards are numbered by name.
struct Checkpoint::Index {
  std::string name = {};  // the file's; empty: one shard without an index
  std::vector<std::string> shards;
  std::unordered_map<std::string, std::uint32_t> tensors = {};
};

std::string index_name(std::string_view stem) {
  return fmt::format("{}.safetensors.index.json", stem);
}

Checkpoint::Index Checkpoint::read_index(
    const fs::path& folder, std::string_view stem) {
  Index index{.name = index_name(stem), .shards = {}};
  const std::string path = (folder / index.name).string();
  const std::string text = read_text_file(path, kStage);
  std::map<std::string, std::uint32_t> numbers;
  const auto visit = [&](std::string& tensor, const Json& value) {
    if (!value.is_string()) {
      throw UserError(
          kStage,
          path,
          fmt::format(
              "'{}' must be a string, found {}", tensor, value.type_name()));
    }
    const std::string& shard = value.get_ref<const std::string&>();
    auto known = numbers.find(shard);
    if (known == numbers.end()) {
      if (!is_inner_path(shard)) {
        throw UserError(
            kStage,
            path,
            fmt::format(
                "'{}' names shard '{}', expected a file name within the folder",
                tensor,
                shard));
      }
      const auto next = static_cast<std::uint32_t>(numbers.size());
      known = numbers.emplace(shard, next).first;
    }
    const auto [said, added] =
        index.tensors.emplace(std::move(tensor), known->second);
    if (!added) {
      throw UserError(
          kStage, path, fmt::format("duplicate JSON key '{}'", said->first));
    }
  };
  const Json rest = parse_json_members(text, {kStage, path, kMap}, visit);
  // Throws where there is no such object.
  (void)JsonObject(rest, std::string(kStage), path).object(kMap);
  std::vector<std::uint32_t> place(numbers.size());
  for (const auto& [shard, number] : numbers) {
    place[number] = static_cast<std::uint32_t>(index.shards.size());
    index.shards.push_back(shard);
  }
  for (auto& [tensor, number] : index.tensors) number = place[number];
  return index;
}

Checkpoint Checkpoint::open(const fs::path& folder) {
  const std::string stem = stem_of(folder);
  if (is_there(folder / single_name(stem))) {
    return open(folder, single_name(stem));
  }
  return Checkpoint(folder, read_index(folder, stem));
}

Checkpoint Checkpoint::open(
    const fs::path& folder, const std::string& file_name) {
  return Checkpoint(folder, Index{.shards = {file_name}});
}

Checkpoint::Checkpoint(fs::path folder, const Index& index)
    : folder_(std::move(folder)), index_name_(index.name) {
  open_shards(index);
  check_index(index);
}

// Tensors found, the index's word included; several shards may hold one.
void Checkpoint::open_shards(const Index& index) {
  std::size_t count = 0;
  for (const std::string& file_name : index.shards) {
    shards_.push_back(open_shard(folder_, file_name));
    count += shards_.back().header.tensors().size();
  }
  places_.reserve(count);
  for (std::uint32_t s = 0; s < shards_.size(); ++s) {
    const auto& tensors = shards_[s].header.tensors();
    for (std::uint32_t i = 0; i < tensors.size(); ++i) {
      const auto [place, added] = places_.emplace(tensors[i].name, Place{s, i});
      if (added) continue;
      const auto word = index.tensors.find(tensors[i].name);
      if (word == index.tensors.end()) {
        throw UserError(
            kStage,
            folder_.string(),
            fmt::format(
                "tensor '{}' lies in both {} and {}, and {} names neither",
                tensors[i].name,
                shards_[place->second.shard].file_name,
                shards_[s].file_name,
                index.name));
      }
      if (word->second == s) place->second = {s, i};
    }
  }
}

void Checkpoint::check_index(const Index& index) {
  const std::string* misplaced = nullptr;  // the first by name
  for (const auto& [tensor, shard] : index.tensors) {
    const auto found = places_.find(tensor);
    if (found == places_.end()) {
      absent_.emplace(tensor, index.shards[shard]);
    } else if (found->second.shard != shard) {
      if (misplaced == nullptr || tensor < *misplaced) misplaced = &tensor;
    }
  }
  if (misplaced == nullptr) return;
  throw UserError(
      kStage,
      (folder_ / index.shards[index.tensors.at(*misplaced)]).string(),
      fmt::format(
          "expected tensor '{}', as {} says, but it lies in {}",
          *misplaced,
          index.name,
          shards_[places_.at(*misplaced).shard].file_name));
}

const TensorInfo* Checkpoint::find(std::string_view name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) return nullptr;
  const Place& place = found->second;
  return &shards_[place.shard].header.tensors()[place.tensor];
}

std::string Checkpoint::why_missing(std::string_view name) const {
  if (const auto said = absent_.find(name); said != absent_.end()) {
    return fmt::format(
        "is missing: {} places it in {}, where it is not. Perhaps an "
        "incomplete download?",
        index_name_,
        said->second);
  }
  const auto other = [&](std::string_view end) {
    std::string_view found;
    for (const auto& [known, unused] : places_) {
      if (!known.ends_with(end)) continue;
      if (found.empty() || known < found) found = known;
    }
    return found;
  };
  // Otherwise a tensor of the same part under another root.
  std::string_view near = other(name);
  const std::size_t dot = name.find('.');
  if (near.empty() && dot != std::string_view::npos) {
    near = other(name.substr(dot));
    if (near.empty() && find(name.substr(dot + 1)) != nullptr) {
      near = name.substr(dot + 1);
    }
  }
  if (near.empty()) return "is missing. Perhaps an incomplete download?";
  return fmt::format(
      "is missing, but '{}' is there; save the weights under the names that "
      "the model's family has",
      near);
}

const Checkpoint::Place& Checkpoint::place(std::string_view name) const {
  const auto found = places_.find(name);
  if (found == places_.end()) {
    throw UserError(
        kStage,
        folder_.string(),
        fmt::format("tensor '{}' {}", name, why_missing(name)));
  }
  return found->second;
}

const TensorInfo& Checkpoint::require(std::string_view name) const {
  const Place& found = place(name);
  return shards_[found.shard].header.tensors()[found.tensor];
}

std::vector<const TensorInfo*> Checkpoint::tensors() const {
  std::vector<const TensorInfo*> result;
  result.reserve(places_.size());
  for (const auto& [name, place] : places_) {
    result.push_back(&shards_[place.shard].header.tensors()[place.tensor]);
  }
  std::ranges::sort(result, {}, [](const TensorInfo* info) {
    return std::string_view(info->name);
  });
  return result;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> result;
  result.reserve(places_.size());
  for (const TensorInfo* info : tensors()) result.push_back(info->name);
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
  const Place& found = place(name);
  const Shard& shard = shards_[found.shard];
  const TensorInfo& info = shard.header.tensors()[found.tensor];
  FETTLE_ASSERT(offset <= info.bytes() && into.size() <= info.bytes() - offset);
  shard.file->read_at(info.begin + offset, into);
}

std::uint64_t Checkpoint::total_bytes() const {
  std::uint64_t total = 0;
  for (const auto& [name, place] : places_) {
    total += shards_[place.shard].header.tensors()[place.tensor].bytes();
  }
  return total;
}

}  // namespace fettle::io
