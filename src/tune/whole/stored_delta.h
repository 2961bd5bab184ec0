// SPDX-License-Identifier: Apache-2.0
// Final values of many whole weights, read from their file when they are asked
// for, under the names that weight_delta.h gives, fp32.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "io/file.h"
#include "io/safetensors.h"
#include "model/family/model_config.h"
#include "tune/part/adapter_part.h"

namespace fettle::tune {

class StoredDelta : public AdapterPart {
 public:
  // Throws UserError when the file is missing, damaged or doesn't fit.
  StoredDelta(
      const std::filesystem::path& path,
      std::string part,
      const model::ModelConfig& config);

  void patch(std::int64_t layer, model::LayerWeights& weights) const override;
  void patch_globals(model::GlobalWeights& weights) const override;
  bool changes(const model::WeightId& id) const override;
  // Throws UserError on a value that is not finite.
  at::Tensor merge(
      const model::WeightId& id, const at::Tensor& base) const override;

 private:
  at::Tensor read(const model::WeightId& id) const;

  std::string part_;
  std::unique_ptr<io::InputFile> file_;
  io::SafetensorsFile header_;
  std::vector<std::vector<model::WeightId>> layers_;
  std::vector<model::WeightId> globals_;
};

}  // namespace fettle::tune
