// SPDX-License-Identifier: Apache-2.0
// Writes the weights of a model folder: one model.safetensors, or shards
// model-00001-of-0000N.safetensors and their index. One shard is open at a
// time, and nothing is buffered. The caller makes the folder appear at once
// (io/atomic_directory.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/file.h"
#include "io/safetensors.h"

namespace fettle::io {

// Files of a model that only Fettle can run begin with this: experts of their
// own widths, constants, condensers. Another loader would run it otherwise than
// it is. Checkpoint::open looks for them too.
inline constexpr std::string_view kOwnStem = "fettle";

// As transformers has it.
inline constexpr std::uint64_t kShardBytes = 5'000'000'000;

struct CheckpointWriterOptions {
  // Largest number of tensor bytes in a shard; a larger tensor gets its own.
  std::uint64_t max_shard_bytes = kShardBytes;
  std::string stem = "model";  // file names begin with it
  Metadata metadata{{"format", "pt"}};
  FileCreator create = create_file;
};

class CheckpointWriter {
 public:
  // Plans the shards. Names must differ (InternalError).
  CheckpointWriter(
      std::filesystem::path folder,
      std::vector<TensorSpec> tensors,
      CheckpointWriterOptions options = {});

  // The next bytes of tensor `name`, in declared order, as in
  // SafetensorsWriter::write.
  void write(std::string_view name, std::span<const std::byte> bytes);

  // Checks that every byte came (InternalError), closes, writes the index.
  void finish();

  std::uint64_t total_bytes() const { return total_bytes_; }
  std::size_t shard_count() const { return plan_.size(); }

 private:
  struct PlannedShard {
    std::size_t first = 0;  // tensors [first, last)
    std::size_t last = 0;
  };

  std::string shard_name(std::size_t shard) const;
  void open_shard();
  void write_index() const;

  std::filesystem::path folder_;
  std::vector<TensorSpec> tensors_;
  CheckpointWriterOptions options_;
  std::vector<PlannedShard> plan_;
  std::unique_ptr<SafetensorsWriter> writer_;  // of the current shard
  std::size_t shard_ = 0;
  std::uint64_t left_ = 0;  // bytes the current shard still misses
  std::uint64_t total_bytes_ = 0;
};

}  // namespace fettle::io
