// SPDX-License-Identifier: Apache-2.0
#include "store/activation_store.h"

#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "core/error.h"
#include "store/pinned_memory.h"
#include "store/scratch_file.h"

namespace fettle::store {
namespace {

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

// Contiguous, without a graph. A view of something larger is copied, since the
// budget could not see the memory that it keeps alive.
at::Tensor alone(const at::Tensor& tensor) {
  const at::Tensor own = tensor.detach().contiguous();
  return own.storage().nbytes() > own.nbytes() ? own.clone() : own;
}

at::Tensor pinned(const at::Tensor& tensor) {
  const auto options = tensor.options().device(at::kCPU).pinned_memory(true);
  return at::empty(tensor.sizes(), options).copy_(tensor.detach());
}

}  // namespace

struct ActivationStore::Impl {
  // Bytes held where there is room for so many.
  struct Room {
    std::int64_t limit;
    std::int64_t used = 0;

    bool take(std::int64_t bytes) {
      const bool fits = bytes == 0 || bytes <= limit - used;
      if (fits) used += bytes;
      return fits;
    }
  };

  // In memory when `tensor` is defined, else on disk at `span`.
  struct Entry {
    at::Tensor tensor;
    std::int64_t held = 0;  // bytes of the room that it is in
    ScratchFile::Span span;
    std::vector<std::int64_t> shape;
    at::ScalarType dtype = at::kFloat;
  };

  explicit Impl(const ActivationStoreOptions& options)
      : device{options.device_bytes},
        ram{options.ram_bytes},
        scratch(options.scratch) {}

  // Into memory, where there is room for it.
  void keep(Entry& entry, const at::Tensor& tensor) {
    const auto bytes = static_cast<std::int64_t>(tensor.nbytes());
    const std::int64_t in_ram = tensor.is_cpu() ? bytes : pinned_bytes(bytes);
    if (!tensor.is_cpu() && device.take(bytes)) {
      entry.tensor = alone(tensor);
      entry.held = bytes;
    } else if (ram.take(in_ram)) {
      entry.tensor = tensor.is_cpu() ? alone(tensor) : pinned(tensor);
      entry.held = in_ram;
    }
  }

  const Entry& find(Key key) const {
    const auto found = entries.find(key);
    FETTLE_ASSERT(found != entries.end());
    return found->second;
  }

  Room device, ram;
  ScratchFile scratch;
  std::map<Key, Entry> entries;
};

ActivationStore::ActivationStore(const ActivationStoreOptions& options)
    : impl_(std::make_unique<Impl>(options)) {}

ActivationStore::~ActivationStore() = default;

void ActivationStore::put(Key key, const at::Tensor& tensor) {
  FETTLE_ASSERT(tensor.defined() && tensor.layout() == at::kStrided);
  erase(key);
  Impl::Entry entry;
  entry.shape = tensor.sizes().vec();
  entry.dtype = tensor.scalar_type();
  impl_->keep(entry, tensor);
  if (!entry.tensor.defined()) {
    entry.span = impl_->scratch.write(bytes_of(alone(tensor.cpu())));
  }
  impl_->entries.emplace(key, std::move(entry));
}

at::Tensor ActivationStore::get(Key key) const {
  const Impl::Entry& entry = impl_->find(key);
  if (entry.tensor.defined()) return entry.tensor;
  at::Tensor tensor = at::empty(entry.shape, entry.dtype);
  impl_->scratch.read(entry.span, bytes_of(tensor));
  return tensor;
}

at::Tensor ActivationStore::take(Key key) {
  at::Tensor tensor = get(key);
  erase(key);
  return tensor;
}

void ActivationStore::erase(Key key) {
  const auto found = impl_->entries.find(key);
  if (found == impl_->entries.end()) return;
  const Impl::Entry& entry = found->second;
  if (entry.tensor.defined()) {
    Impl::Room& room = entry.tensor.is_cpu() ? impl_->ram : impl_->device;
    room.used -= entry.held;
  } else {
    impl_->scratch.free(entry.span);
  }
  impl_->entries.erase(found);
}

void ActivationStore::clear() {
  impl_->entries.clear();
  impl_->device.used = 0;
  impl_->ram.used = 0;
  impl_->scratch.clear();
}

std::int64_t ActivationStore::device_bytes() const {
  return impl_->device.used;
}

std::int64_t ActivationStore::ram_bytes() const { return impl_->ram.used; }

std::int64_t ActivationStore::scratch_bytes() const {
  return impl_->scratch.size();
}

}  // namespace fettle::store
