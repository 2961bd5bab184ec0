// SPDX-License-Identifier: Apache-2.0
// The tensors of an exported model, each made when asked for from the source:
// converted, and experts filled up with zeros to their new width.
#pragma once

#include <ATen/ATen.h>

#include "export/export.h"
#include "model/weights/model_reader.h"

namespace fettle::exporter {

class ExportedWeights {
 public:
  // All must outlive this object.
  ExportedWeights(
      const model::ModelReader& reader,
      const model::ModelConfig& target,
      const ExportOptions& options);

  model::WeightForm form(const model::WeightId& id) const;
  // As form() says.
  at::Tensor tensor(const model::WeightId& id) const;
  // What a program that loads the weight is to find: tensor(), or of a weight
  // that is packed in the source its own values, filled up in the same way.
  at::Tensor meant(const model::WeightId& id) const;
  // Whether the conversion loses bits of some weight.
  bool narrows() const;
  // Reads all that is to be written. Throws UserError naming the first weight
  // that holds NaN or infinity, or would in the exported type.
  void require_finite() const;
  // The type that loaders give the exported model.
  at::ScalarType loaded_type() const;

 private:
  at::ScalarType dtype(const model::WeightId& id) const;
  bool stays_packed(const model::WeightId& id) const;

  const model::ModelReader& reader_;
  const model::ModelConfig& target_;
  const ExportOptions& options_;
};

}  // namespace fettle::exporter
