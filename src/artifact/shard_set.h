// SPDX-License-Identifier: Apache-2.0
// A packed model's weights written shard by shard, each a file that appears
// whole: what a stage that works layer by layer, and may be killed in any,
// leaves behind. A shard may carry a few words of JSON about how it came to be.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "artifact/carried_copy.h"
#include "core/json.h"
#include "io/safetensors.h"

namespace fettle::artifact {

// Beside the shards of an unfinished run: what it must not differ in to go on.
inline constexpr std::string_view kShardIdentity = "quant_state.json";
// Measured before the first shard, and worth as much.
inline constexpr std::string_view kMeasuredErrors = "quant_errors.json";

// The progress of an unfinished run in a folder, such as "3 of 5 parts of a
// quantized model"; empty: there is none.
std::string saved_shards(const std::filesystem::path& folder);

struct NamedTensor {
  io::TensorSpec spec;
  at::Tensor tensor;  // contiguous, on the CPU
};

class ShardSet {
 public:
  // Shards 0 .. count-1 of the model in `folder`, which exists.
  ShardSet(std::filesystem::path folder, std::int64_t count);

  std::string file_name(std::int64_t shard) const;
  // Another file of the set, beside the shards.
  static std::string carried_name();
  // What is recorded of a shard, where it is there.
  std::optional<Json> find(std::int64_t shard) const;
  void write(
      std::int64_t shard,
      const std::vector<NamedTensor>& tensors,
      const Json& note) const;
  // Writes what the model keeps of its source beside its weights; no file
  // where that is nothing.
  void write_carried(const CarriedCopy& carried) const;
  // Whether any shard is there.
  bool any() const;
  // Writes the index over all shards, which are there, and what is carried.
  void write_index() const;

 private:
  std::filesystem::path folder_;
  std::int64_t count_;
};

}  // namespace fettle::artifact
