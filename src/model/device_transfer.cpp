// SPDX-License-Identifier: Apache-2.0
#include "model/device_transfer.h"

#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstring>
#include <vector>

#include "core/error.h"
#include "model/packed_layer.h"
#include "model/weight_visit.h"

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

at::Tensor carried(const at::Tensor& tensor, at::Device device) {
  return tensor.pin_memory().to(device, /*non_blocking=*/true);
}

// A packed layer has a thousand tensors and more: they go as one. Returns the
// memory that they share.
at::Tensor carry_packed(PackedLayer& layer, at::Device device) {
  std::int64_t bytes = 0;
  layer.for_each_tensor([&](at::Tensor& t) { bytes += room_for(t); });
  const at::Tensor host = at::empty({bytes}, at::kByte).pin_memory();
  std::int64_t at = 0;
  layer.for_each_tensor([&](const at::Tensor& t) {
    const at::Tensor whole = t.contiguous();
    if (whole.nbytes() > 0) {
      std::memcpy(
          host.data_ptr<std::uint8_t>() + at, whole.data_ptr(), whole.nbytes());
    }
    at += room_for(t);
  });
  const at::Tensor all = carried(host, device);
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

at::Tensor carry_packed(LayerWeights& weights, at::Device device) {
  if (!weights.packed) return {};
  auto layer = std::make_shared<PackedLayer>(*weights.packed);
  const at::Tensor all = carry_packed(*layer, device);
  weights.packed = std::move(layer);
  return all;
}

at::Tensor carry_packed(GlobalWeights&, at::Device) { return {}; }

}  // namespace

DeviceTransfer::DeviceTransfer(at::Device device) : device_(device) {
  if (!device.is_cpu()) stream_ = copy_stream(device);
}

at::TensorOptions DeviceTransfer::host(at::ScalarType type) const {
  return at::TensorOptions(type).pinned_memory(stream_.has_value());
}

template <typename Weights>
Weights DeviceTransfer::carried(Weights weights) const {
  if (!stream_) return weights;
  const c10::impl::VirtualGuardImpl backend(device_.type());
  const c10::Stream user = backend.getDefaultStream(device_);
  const auto used = [&](const at::Tensor& tensor) {
    backend.recordDataPtrOnStream(tensor.storage().data_ptr(), user);
  };
  {
    const c10::StreamGuard guard(*stream_);
    for_each_tensor(weights, [&](at::Tensor& tensor) {
      tensor = model::carried(tensor, device_);
      used(tensor);
    });
    const at::Tensor packed = carry_packed(weights, device_);
    if (packed.defined()) used(packed);
  }
  stream_->synchronize();
  return weights;
}

LayerWeights DeviceTransfer::carry(LayerWeights weights) const {
  return carried(std::move(weights));
}

GlobalWeights DeviceTransfer::carry(GlobalWeights weights) const {
  return carried(std::move(weights));
}

}  // namespace fettle::model
