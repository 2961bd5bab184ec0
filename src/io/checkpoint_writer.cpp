// SPDX-License-Identifier: Apache-2.0
#include "io/checkpoint_writer.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "io/checkpoint.h"

namespace fettle::io {

CheckpointWriter::CheckpointWriter(
    std::filesystem::path folder,
    std::vector<TensorSpec> tensors,
    CheckpointWriterOptions options)
    : folder_(std::move(folder)),
      tensors_(std::move(tensors)),
      options_(std::move(options)) {
  std::set<std::string_view> names;
  std::uint64_t filled = 0;
  plan_.emplace_back();
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    // Within one shard its own writer would notice; across shards, nobody.
    FETTLE_ASSERT(names.insert(tensors_[i].name).second);
    const std::uint64_t bytes = tensors_[i].bytes();
    if (filled > 0 && bytes > options_.max_shard_bytes - filled) {
      plan_.push_back({i, i});
      filled = 0;
    }
    plan_.back().last = i + 1;
    filled += bytes;
    total_bytes_ += bytes;
    // A tensor larger than a shard may be fills its own.
    filled = std::min(filled, options_.max_shard_bytes);
  }
  open_shard();
}

std::string CheckpointWriter::shard_name(std::size_t shard) const {
  if (plan_.size() == 1) return options_.stem + ".safetensors";
  return fmt::format(
      "{}-{:05}-of-{:05}.safetensors", options_.stem, shard + 1, plan_.size());
}

void CheckpointWriter::open_shard() {
  const PlannedShard& shard = plan_[shard_];
  std::vector<TensorSpec> specs;
  left_ = 0;
  for (std::size_t i = shard.first; i < shard.last; ++i) {
    specs.push_back(tensors_[i]);
    left_ += tensors_[i].bytes();
  }
  writer_ = std::make_unique<SafetensorsWriter>(
      options_.create(folder_ / shard_name(shard_)),
      std::move(specs),
      options_.metadata);
}

void CheckpointWriter::write(
    std::string_view name, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  if (left_ == 0 && shard_ + 1 < plan_.size()) {
    writer_->finish();
    ++shard_;
    open_shard();
  }
  writer_->write(name, bytes);
  left_ -= bytes.size();
}

void CheckpointWriter::finish() {
  // Every shard but the first holds bytes, so the last has been opened.
  FETTLE_ASSERT(left_ == 0 && shard_ + 1 == plan_.size());
  writer_->finish();
  if (plan_.size() > 1) write_index();
}

void CheckpointWriter::write_index() const {
  Json map = Json::object();
  for (std::size_t shard = 0; shard < plan_.size(); ++shard) {
    for (std::size_t i = plan_[shard].first; i < plan_[shard].last; ++i) {
      map[tensors_[i].name] = shard_name(shard);
    }
  }
  const Json index{
      {"metadata", {{"total_size", total_bytes_}}},
      {"weight_map", std::move(map)}};
  const std::string text = index.dump(2) + "\n";
  const auto file = options_.create(folder_ / index_name(options_.stem));
  file->append(std::as_bytes(std::span(text)));
  file->close();
}

}  // namespace fettle::io
