// SPDX-License-Identifier: Apache-2.0
// The emulated card's memory. The program sees it at addresses where nothing
// can be touched: code of the host that reads or writes there ends in a
// segmentation fault. The emulation has another view of the same bytes, and
// opens the first one while a kernel runs.
#pragma once

#include <c10/core/CachingDeviceAllocator.h>

#include <map>
#include <set>
#include <thread>

#include "streams.h"

namespace fettle::kernels::emulated {

// libtorch's allocator of the card. Fills what it gives out with bytes of 255,
// NaN in every type of floats. Keeps what is given back for the stream that it
// was made for, as libtorch's does, and reserves segments: what is reserved is
// the sum of each stream's peaks of small, middling and large tensors, rounded
// up. Answers no question before it is initialized.
class CardMemory final : public c10::DeviceAllocator {
 public:
  // `taken`: bytes of it that others have, without getMemoryInfo saying so.
  CardMemory(std::size_t capacity, std::size_t taken);

  c10::DataPtr allocate(std::size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* to, const void* from, std::size_t bytes) const override;
  bool initialized() override { return initialized_; }
  void initialize() { initialized_ = true; }
  void emptyCache(c10::MempoolId_t) override {}
  void recordStream(const c10::DataPtr& memory, c10::Stream stream) override;
  // num_sync_all_streams: how often the host has waited for a stream.
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(
      c10::DeviceIndex) override;
  void resetAccumulatedStats(c10::DeviceIndex) override {}
  void resetPeakStats(c10::DeviceIndex) override {}
  std::pair<std::size_t, std::size_t> getMemoryInfo(c10::DeviceIndex) override;

  // Where the emulation finds the bytes of an address of the card.
  void* view(const void* address) const;

  // That `work`, given to its stream now, reads or writes the allocation which
  // holds `address`. Ends the program where it might run before or beside work
  // that it must come after.
  void use(const void* address, const Use& work, bool writes);

  // Lets kernels at the card's addresses, as often as it is called.
  void open();
  void close();

  void release(void* address);

  // That work for a stream multiplies matrices: the first time that a thread
  // gives it such work, libtorch reserves a workspace.
  void reserve_workspace();

 private:
  struct Block {
    std::size_t bytes = 0;
    c10::StreamId stream = 0;           // that it was made for
    Use written;                        // last
    std::map<c10::StreamId, Use> read;  // last, by each stream
    std::set<c10::StreamId> recorded;   // that its end waits for
  };
  struct Pool {
    std::size_t used = 0, reserved = 0;
  };

  std::size_t offset(const void* address) const;
  std::size_t find_room(std::size_t bytes);
  void give_back(std::size_t begin, std::size_t bytes);
  void protect(int how);

  std::size_t capacity_;
  std::byte* card_ = nullptr;  // as the program sees it
  std::byte* view_ = nullptr;  // the same bytes as the emulation does
  int file_ = -1;
  int opened_ = 0;
  std::map<std::size_t, std::size_t> free_;  // offset → bytes
  std::map<std::size_t, Block> blocks_;      // by offset
  // By stream, and the size of their segments.
  std::map<std::pair<c10::StreamId, std::size_t>, Pool> pools_;
  std::set<std::pair<std::thread::id, c10::StreamId>> workspaces_;
  bool initialized_ = false;
  c10::CachingDeviceAllocator::DeviceStats stats_;
};

// $FETTLE_EMULATED_CARD_MIB large, or else 4096 MiB; others have
// $FETTLE_EMULATED_CARD_TAKEN_MIB of it.
CardMemory& card_memory();

}  // namespace fettle::kernels::emulated
