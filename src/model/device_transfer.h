// SPDX-License-Identifier: Apache-2.0
// Carries layers to the device on a stream of their own, so that a copy runs
// behind the computation of the layer before it.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Stream.h>

#include <optional>

#include "model/layer_weights.h"
#include "model/model_reader.h"

namespace fettle::model {

class DeviceTransfer {
 public:
  // On the CPU nothing is carried.
  explicit DeviceTransfer(at::Device device);

  // Where layers on their way are read to: memory that the device can read by
  // itself.
  at::TensorOptions host(at::ScalarType type) const;

  // The same weights on the device, for work on its default stream. Returns
  // when the copy is done; the calling thread waits, not that stream.
  LayerWeights carry(LayerWeights weights) const;
  GlobalWeights carry(GlobalWeights weights) const;

 private:
  at::Device device_;
  std::optional<c10::Stream> stream_;
};

// RAM that a model's weights take on their way to a device, at most: libtorch
// gives pinned memory out by powers of two, and keeps what is given back.
std::int64_t staging_bytes(const ModelReader& reader, at::ScalarType type);

}  // namespace fettle::model
