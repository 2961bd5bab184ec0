// SPDX-License-Identifier: Apache-2.0
#include "model/weights/device_transfer.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <cstring>

#include "core/error.h"
#include "model/weights/packed_layer.h"
#include "model/weights/weight_visit.h"
#include "store/pinned_memory.h"

namespace fettle::model {
namespace {

constexpr std::int64_t kAlignment = 64;  // of a tensor among others

// One for the process, whose work runs on one device: libtorch's allocator
// keeps memory that is given back for the stream that asked for it, and each
// stream of its own would hold a layer.
c10::Stream copy_stream(at::Device device) {
  static const c10::Stream stream =
      c10::impl::VirtualGuardImpl(device.type())
          .getStreamFromGlobalPool(device, /*isHighPriority=*/false);
  FETTLE_ASSERT(stream.device() == device);
  return stream;
}

std::int64_t room_for(const at::Tensor& tensor) {
  const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// A packed layer has a thousand tensors and more: they go as one. Returns the
// memory that they share.
at::Tensor packed_to_device(PackedLayer& layer, at::Device device) {
  std::int64_t bytes = 0;
  layer.for_each_tensor([&](at::Tensor& t) { bytes += room_for(t); });
  const at::Tensor host =
      at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  std::int64_t at = 0;
  layer.for_each_tensor([&](const at::Tensor& t) {
    const at::Tensor whole = t.contiguous();
    if (whole.nbytes() > 0) {
      std::memcpy(
          host.data_ptr<std::uint8_t>() + at, whole.data_ptr(), whole.nbytes());
    }
    at += room_for(t);
  });
  const at::Tensor all = host.to(device, /*non_blocking=*/true);
  at = 0;
  layer.for_each_tensor([&](at::Tensor& t) {
    const std::int64_t room = room_for(t);
    t = all.narrow(0, at, static_cast<std::int64_t>(t.nbytes()))
            .view(t.scalar_type())
            .view(t.sizes());
    at += room;
  });
  return all;
}

}  // namespace

at::TensorOptions host_options(at::ScalarType type, at::Device device) {
  return at::TensorOptions(type).pinned_memory(!device.is_cpu());
}

LayerWeights to_device(LayerWeights weights, at::Device device) {
  if (device.is_cpu()) return weights;
  const c10::Stream stream = copy_stream(device);
  const c10::impl::VirtualGuardImpl backend(device.type());
  const c10::Stream user = backend.getDefaultStream(device);
  const auto used = [&](const at::Tensor& tensor) {
    backend.recordDataPtrOnStream(tensor.storage().data_ptr(), user);
  };
  {
    const c10::StreamGuard guard(stream);
    for_each_tensor(weights, [&](at::Tensor& tensor) {
      tensor = tensor.to(device, /*non_blocking=*/true);
      used(tensor);
    });
    if (weights.packed) {
      auto packed = std::make_shared<PackedLayer>(*weights.packed);
      used(packed_to_device(*packed, device));
      weights.packed = std::move(packed);
    }
  }
  stream.synchronize();
  return weights;
}

}  // namespace fettle::model
