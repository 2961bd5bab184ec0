// SPDX-License-Identifier: Apache-2.0
// What tuning leaves: adapter.safetensors (final values, see *_delta.h) and
// adapter.json (method, parts, options, fingerprint of the base, checksum).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/json.h"
#include "model/weights/model_reader.h"
#include "tune/part/adapter_part.h"
#include "tune/part/trainable_part.h"

namespace fettle::tune {

// The facts about an adapter beside its tensors.
struct AdapterInfo {
  std::string method;
  std::string model_fingerprint;  // of the base
  Json options = Json::object();
  Json measured = Json::object();
};

// The fingerprint that adapters and states carry.
std::string model_fingerprint(const model::ModelReader& reader);

// Writes both files into `folder`, which exists.
void save_adapter(
    const std::filesystem::path& folder,
    const std::vector<std::unique_ptr<TrainablePart>>& parts,
    const AdapterInfo& info);

// Replaces what was measured in `folder`/adapter.json: for figures known only
// after the adapter was written.
void set_measured(const std::filesystem::path& folder, const Json& measured);

struct AdapterLoadOptions {
  bool any_base = false;  // take `base` whatever its fingerprint is
};

class Adapter {
 public:
  // Throws UserError when the files are missing, damaged, of another format,
  // have a part that is not known or does not fit, or belong to another base
  // than `base`.
  static Adapter load(
      const std::filesystem::path& folder,
      const model::ModelReader& base,
      const AdapterLoadOptions& options = {});

  const AdapterInfo& info() const { return info_; }
  // Makes the base's configuration that of the tuned model.
  void change(model::ModelConfig& config) const;
  // For CausalLm::set_patch, and once for weights outside the layers: the
  // model then computes as it was tuned.
  void patch(std::int64_t layer, model::LayerWeights& weights) const;
  void patch_globals(model::GlobalWeights& weights) const;
  bool changes(const model::WeightId& id) const;
  // `base` with the final values in, both fp32 on the CPU.
  at::Tensor merge(const model::WeightId& id, at::Tensor base) const;

 private:
  AdapterInfo info_;
  std::vector<std::unique_ptr<AdapterPart>> parts_;
};

}  // namespace fettle::tune
