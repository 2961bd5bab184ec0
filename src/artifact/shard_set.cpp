// SPDX-License-Identifier: Apache-2.0
#include "artifact/shard_set.h"

#include <fmt/format.h>

#include <system_error>
#include <utility>

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "io/checkpoint.h"
#include "io/durable.h"
#include "io/file.h"

namespace fettle::artifact {
namespace {

constexpr const char* kNote = "fettle";

bool is_shard(const std::filesystem::path& path) {
  return path.filename().string().starts_with(
             std::string(io::kPackedStem) + "-0") &&
         path.extension() == ".safetensors";
}

}  // namespace

std::string saved_shards(const std::filesystem::path& folder) {
  std::int64_t shards = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (is_shard(entry.path())) ++shards;
  }
  if (shards > 0 && std::filesystem::exists(folder / kShardIdentity)) {
    return fmt::format(
        "{} part{} of a quantized model", shards, shards == 1 ? "" : "s");
  }
  return std::filesystem::exists(folder / kMeasuredErrors)
             ? "the measured errors of a quant run"
             : "";
}

ShardSet::ShardSet(std::filesystem::path folder, std::int64_t count)
    : folder_(std::move(folder)), count_(count) {}

std::string ShardSet::file_name(std::int64_t shard) const {
  return fmt::format(
      "{}-{:05}-of-{:05}.safetensors", io::kPackedStem, shard + 1, count_);
}

std::optional<Json> ShardSet::find(std::int64_t shard) const {
  const std::filesystem::path path = folder_ / file_name(shard);
  if (!std::filesystem::exists(path)) return std::nullopt;
  const auto header = io::SafetensorsFile::parse(*io::open_file(path));
  const auto note = header.metadata().find(kNote);
  if (note == header.metadata().end()) {
    throw UserError(
        "resume",
        path.string(),
        "is not a shard of an unfinished run; remove the folder to start over");
  }
  return parse_json(note->second, "resume", path.string());
}

void ShardSet::write(
    std::int64_t shard,
    const std::vector<NamedTensor>& tensors,
    const Json& note) const {
  const std::filesystem::path path = folder_ / file_name(shard);
  const std::filesystem::path unfinished = io::unfinished(path);
  std::vector<io::TensorSpec> specs;
  for (const NamedTensor& named : tensors) specs.push_back(named.spec);
  io::SafetensorsWriter writer(
      io::create_file(unfinished),
      std::move(specs),
      {{"format", "pt"}, {kNote, note.dump()}});
  for (const NamedTensor& named : tensors) {
    writer.write(named.spec.name, tensor_bytes(named.tensor));
  }
  writer.finish();
  std::error_code error;
  std::filesystem::rename(unfinished, path, error);
  if (error) throw UserError("write", path.string(), error.message());
}

std::string ShardSet::carried_name() {
  return fmt::format("{}-carried.safetensors", io::kPackedStem);
}

void ShardSet::write_carried(const CarriedCopy& carried) const {
  std::vector<io::TensorSpec> specs = carried.specs();
  const std::filesystem::path path = folder_ / carried_name();
  std::error_code error;
  if (specs.empty()) {
    std::filesystem::remove(path, error);  // of a run before this one
    return;
  }
  const std::filesystem::path unfinished = io::unfinished(path);
  io::SafetensorsWriter writer(io::create_file(unfinished), std::move(specs));
  carried.write([&](const std::string& name, std::span<const std::byte> bytes) {
    writer.write(name, bytes);
  });
  writer.finish();
  std::filesystem::rename(unfinished, path, error);
  if (error) throw UserError("write", path.string(), error.message());
}

bool ShardSet::any() const {
  for (std::int64_t shard = 0; shard < count_; ++shard) {
    if (std::filesystem::exists(folder_ / file_name(shard))) return true;
  }
  return false;
}

void ShardSet::write_index() const {
  Json map = Json::object();
  std::uint64_t total = 0;
  std::vector<std::string> files;
  for (std::int64_t shard = 0; shard < count_; ++shard) {
    files.push_back(file_name(shard));
  }
  if (std::filesystem::exists(folder_ / carried_name())) {
    files.push_back(carried_name());
  }
  for (const std::string& file : files) {
    const auto header =
        io::SafetensorsFile::parse(*io::open_file(folder_ / file));
    for (const io::TensorInfo& tensor : header.tensors()) {
      map[tensor.name] = file;
      total += tensor.bytes();
    }
  }
  const Json index{
      {"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
  io::write_file(
      folder_ / io::index_name(io::kPackedStem), index.dump(2) + "\n");
}

}  // namespace fettle::artifact
