// SPDX-License-Identifier: Apache-2.0
#include "store/activation_store.h"

#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include "core/error.h"
#include "store/scratch_file.h"

namespace fettle::store {
namespace {

std::span<std::byte> bytes_of(const at::Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data_ptr()), tensor.nbytes()};
}

// On the host, contiguous, without a graph. A view of something larger is
// copied, since the budget could not see the memory that it keeps alive.
at::Tensor host_tensor(const at::Tensor& tensor) {
  const at::Tensor host = tensor.detach().to(at::kCPU).contiguous();
  return host.storage().nbytes() > host.nbytes() ? host.clone() : host;
}

}  // namespace

struct ActivationStore::Impl {
  // In RAM when `tensor` is defined, else on disk at `span`.
  struct Entry {
    at::Tensor tensor;
    ScratchFile::Span span;
    std::vector<std::int64_t> shape;
    at::ScalarType dtype = at::kFloat;
  };

  explicit Impl(const ActivationStoreOptions& options)
      : ram_limit(options.ram_bytes), scratch(options.scratch) {}

  const Entry& find(Key key) const {
    const auto found = entries.find(key);
    FETTLE_ASSERT(found != entries.end());
    return found->second;
  }

  std::int64_t ram_limit;
  std::int64_t ram_used = 0;
  ScratchFile scratch;
  std::map<Key, Entry> entries;
};

ActivationStore::ActivationStore(const ActivationStoreOptions& options)
    : impl_(std::make_unique<Impl>(options)) {}

ActivationStore::~ActivationStore() = default;

void ActivationStore::put(Key key, const at::Tensor& tensor) {
  FETTLE_ASSERT(tensor.defined() && tensor.layout() == at::kStrided);
  erase(key);
  at::Tensor host = host_tensor(tensor);
  const auto bytes = static_cast<std::int64_t>(host.nbytes());
  Impl::Entry entry{{}, {}, host.sizes().vec(), host.scalar_type()};
  if (bytes == 0 || bytes <= impl_->ram_limit - impl_->ram_used) {
    impl_->ram_used += bytes;
    entry.tensor = std::move(host);
  } else {
    entry.span = impl_->scratch.write(bytes_of(host));
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
    impl_->ram_used -= static_cast<std::int64_t>(entry.tensor.nbytes());
  } else {
    impl_->scratch.free(entry.span);
  }
  impl_->entries.erase(found);
}

void ActivationStore::clear() {
  impl_->entries.clear();
  impl_->ram_used = 0;
  impl_->scratch.clear();
}

std::int64_t ActivationStore::ram_bytes() const { return impl_->ram_used; }

std::int64_t ActivationStore::scratch_bytes() const {
  return impl_->scratch.size();
}

}  // namespace fettle::store
