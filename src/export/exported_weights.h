// SPDX-License-Identifier: Apache-2.0
// The tensors of an exported model, each made when asked for from the source:
// converted, and experts filled up with zeros to their new width.
#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "model/model_reader.h"

namespace fettle::exporter {

class ExportedWeights {
 public:
  // Both must outlive this object.
  ExportedWeights(
      const model::ModelReader& reader,
      const model::ModelConfig& target,
      std::optional<at::ScalarType> dtype);

  at::ScalarType dtype(const model::WeightId& id) const;
  at::Tensor tensor(const model::WeightId& id) const;
  // Whether the conversion loses bits of some weight.
  bool narrows() const;

 private:
  const model::ModelReader& reader_;
  const model::ModelConfig& target_;
  std::optional<at::ScalarType> dtype_;
};

}  // namespace fettle::exporter
