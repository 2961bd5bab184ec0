// SPDX-License-Identifier: Apache-2.0
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include "memory.h"
#include "streams.h"

namespace fettle::kernels::emulated {
namespace {

constexpr c10::StreamId kPoolStreams = 32;  // as many as libtorch has

// What c10's guards of streams, devices and events ask the card.
class Guard final : public c10::impl::DeviceGuardImplInterface {
 public:
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return card(); }
  c10::Device getDevice() const override { return card(); }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }

  c10::Stream getStream(c10::Device) const override {
    return stream(current_stream());
  }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(0); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool) const override {
    const std::lock_guard lock(card_lock());
    static c10::StreamId next = 0;
    return stream(1 + next++ % kPoolStreams);
  }
  c10::Stream exchangeStream(c10::Stream to) const override {
    return stream(exchange_stream(to.id()));
  }
  void* getStreamNativeHandle(c10::Stream of) const override {
    return reinterpret_cast<void*>(of.id());
  }
  bool queryStream(const c10::Stream& of) const override {
    synchronizeStream(of);
    return true;
  }
  void synchronizeStream(const c10::Stream& of) const override {
    const std::lock_guard lock(card_lock());
    streams().wait(streams().queue(of.id()));
  }
  void synchronizeDevice(c10::DeviceIndex) const override {
    for (c10::StreamId id = 0; id <= kPoolStreams; ++id) {
      synchronizeStream(stream(id));
    }
  }

  void record(
      void** event,
      const c10::Stream& of,
      c10::DeviceIndex,
      c10::EventFlag) const override {
    const std::lock_guard lock(card_lock());
    if (*event == nullptr) *event = new Known;
    *static_cast<Known*>(*event) = streams().all_of(streams().queue(of.id()));
  }
  void block(void* event, const c10::Stream& of) const override {
    const std::lock_guard lock(card_lock());
    if (event == nullptr) return;
    streams().learn(
        streams().queue(of.id()), *static_cast<const Known*>(event));
  }
  bool queryEvent(void* event) const override {
    synchronizeEvent(event);
    return true;
  }
  void synchronizeEvent(void* event) const override {
    const std::lock_guard lock(card_lock());
    if (event != nullptr) streams().learn(*static_cast<const Known*>(event));
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override {
    delete static_cast<Known*>(event);
  }
  void recordDataPtrOnStream(
      const c10::DataPtr& memory, const c10::Stream& of) const override {
    card_memory().recordStream(memory, of);
  }

 private:
  static c10::Device card() { return {c10::kCUDA, 0}; }
  static c10::Stream stream(c10::StreamId id) {
    return c10::Stream(c10::Stream::UNSAFE, card(), id);
  }
};

C10_REGISTER_GUARD_IMPL(CUDA, Guard);

}  // namespace
}  // namespace fettle::kernels::emulated
