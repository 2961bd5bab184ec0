// SPDX-License-Identifier: Apache-2.0
// What ATen asks of CUDA where it is not about tensors, answered for the
// emulated card.
#include <ATen/detail/CUDAHooksInterface.h>

#include <cstdlib>
#include <mutex>
#include <set>

#include "memory.h"

namespace fettle::kernels::emulated {
namespace {

// Memory of the host that a card could read by itself.
class PinnedMemory final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    void* at =
        bytes == 0 ? nullptr : std::aligned_alloc(64, (bytes + 63) / 64 * 64);
    const std::lock_guard lock(mutex_);
    if (at != nullptr) pinned_.insert(at);
    return {at, at, give_back, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return give_back; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
  // `at` is the beginning of an allocation.
  bool has(const void* at) {
    const std::lock_guard lock(mutex_);
    return pinned_.contains(at);
  }

  static PinnedMemory& instance() {
    static auto* memory = new PinnedMemory;
    return *memory;
  }

 private:
  static void give_back(void* at) {
    PinnedMemory& self = instance();
    const std::lock_guard lock(self.mutex_);
    self.pinned_.erase(at);
    std::free(at);
  }

  std::mutex mutex_;
  std::set<const void*> pinned_;
};

struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override { card_memory().initialize(); }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasCUDART() const override { return true; }
  int getNumGPUs() const override { return 1; }
  at::DeviceIndex deviceCount() const override { return 1; }
  at::DeviceIndex current_device() const override { return 0; }
  at::DeviceIndex getCurrentDevice() const override { return 0; }
  bool hasPrimaryContext(at::DeviceIndex) const override { return true; }
  at::Allocator* getCUDADeviceAllocator() const override {
    return &card_memory();
  }
  at::Allocator* getPinnedMemoryAllocator() const override {
    return &PinnedMemory::instance();
  }
  bool isPinnedPtr(const void* at) const override {
    return PinnedMemory::instance().has(at);
  }
};

}  // namespace
}  // namespace fettle::kernels::emulated

namespace at {
using fettle::kernels::emulated::CUDAHooks;
REGISTER_CUDA_HOOKS(CUDAHooks);
}  // namespace at
