// SPDX-License-Identifier: Apache-2.0
#include "model/device_transfer.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "model/packed_layer.h"
#include "model/weight_visit.h"

namespace fettle::model {
namespace {

void move_packed(LayerWeights& weights, at::Device device) {
  if (weights.packed) {
    weights.packed = std::make_shared<PackedLayer>(weights.packed->to(device));
  }
}

void move_packed(GlobalWeights&, at::Device) {}

template <typename Weights>
Weights moved(Weights weights, at::Device device) {
  if (device.is_cpu()) return weights;
  const c10::impl::VirtualGuardImpl backend(device.type());
  const c10::Stream copy_stream =
      backend.getStreamFromGlobalPool(device, /*isHighPriority=*/false);
  {
    const c10::StreamGuard guard(copy_stream);
    for_each_tensor(weights, [&](at::Tensor& tensor) {
      tensor = tensor.pin_memory().to(device, /*non_blocking=*/true);
    });
    move_packed(weights, device);
  }
  // Pinned buffers may be reused and the weights used once this returns; the
  // fetching thread is the one that waits.
  copy_stream.synchronize();
  return weights;
}

}  // namespace

LayerWeights to_device(LayerWeights weights, at::Device device) {
  return moved(std::move(weights), device);
}

GlobalWeights to_device(GlobalWeights weights, at::Device device) {
  return moved(std::move(weights), device);
}

}  // namespace fettle::model
