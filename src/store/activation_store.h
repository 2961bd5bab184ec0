// SPDX-License-Identifier: Apache-2.0
// Layer-boundary activations of a sweep: up to a budget on the device that
// computed them, up to another in RAM, and the rest in a scratch file that is
// unlinked as soon as it is open, so that no crash leaves it behind.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <utility>

namespace fettle::store {

struct ActivationStoreOptions {
  // Bytes of a device's tensors that stay on it.
  std::int64_t device_bytes = 0;
  // Bytes of tensors held in RAM before the rest goes to the scratch file. A
  // device's tensor takes a power of two there, of pinned memory.
  std::int64_t ram_bytes = std::int64_t{1} << 62;
  // Folder of the scratch file; it is made when first needed.
  std::filesystem::path scratch = std::filesystem::temp_directory_path();
};

class ActivationStore {
 public:
  explicit ActivationStore(const ActivationStoreOptions& options);
  ~ActivationStore();
  ActivationStore(const ActivationStore&) = delete;
  ActivationStore& operator=(const ActivationStore&) = delete;

  // A tensor is known by its layer boundary and micro-batch.
  using Key = std::pair<std::int64_t, std::int64_t>;

  // Keeps `tensor` under `key`, in place of what was there. A contiguous tensor
  // that owns all of its memory is kept without a copy where it is: nobody may
  // change it in place afterwards. Throws UserError when the scratch disk is
  // full.
  void put(Key key, const at::Tensor& tensor);
  // The tensor, on the CPU or where it came from, with the shape, dtype and
  // bits it was put with. It may share memory with the store. The key must be
  // there.
  at::Tensor get(Key key) const;
  // Gets the tensor and forgets it; its memory or disk span is used again.
  at::Tensor take(Key key);
  void erase(Key key);  // nothing happens when the key isn't there
  void clear();

  std::int64_t device_bytes() const;   // held now
  std::int64_t ram_bytes() const;      // held now
  std::int64_t scratch_bytes() const;  // size of the scratch file

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fettle::store
