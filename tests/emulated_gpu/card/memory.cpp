// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace fettle::kernels::emulated {
namespace {

constexpr std::size_t kMib = std::size_t{1} << 20;
constexpr std::size_t kGrain = 512;  // libtorch rounds sizes up to it
constexpr std::size_t kWorkspace = 32 * kMib;

std::size_t rounded_up(std::size_t bytes, std::size_t grain) {
  return (bytes + grain - 1) / grain * grain;
}

// As libtorch reserves: tensors up to 1 MiB share segments, those below 10 MiB
// share larger ones, others have their own.
std::size_t segment_bytes(std::size_t bytes) {
  if (bytes <= kMib) return 2 * kMib;
  if (bytes < 10 * kMib) return 20 * kMib;
  return rounded_up(bytes, 2 * kMib);
}

std::byte* mapped(std::size_t bytes, int protection, int file) {
  void* at =
      mmap(nullptr, bytes, protection, MAP_SHARED | MAP_NORESERVE, file, 0);
  if (at == MAP_FAILED) throw std::runtime_error("no memory for the card");
  return static_cast<std::byte*>(at);
}

void release_block(void* address) { card_memory().release(address); }

}  // namespace

CardMemory::CardMemory(std::size_t capacity, std::size_t taken)
    : capacity_(capacity) {
  file_ = memfd_create("emulated card", MFD_CLOEXEC);
  if (file_ < 0 || ftruncate(file_, static_cast<off_t>(capacity)) != 0) {
    throw std::runtime_error("no memory for the card");
  }
  card_ = mapped(capacity, PROT_NONE, file_);
  view_ = mapped(capacity, PROT_READ | PROT_WRITE, file_);
  free_[0] = capacity - taken;
}

c10::DataPtr CardMemory::allocate(std::size_t bytes) {
  const c10::Device card(c10::kCUDA, 0);
  if (bytes == 0) return {nullptr, card};
  const std::lock_guard lock(card_lock());
  initialize();
  const std::size_t rounded = rounded_up(bytes, kGrain);
  const std::size_t begin = find_room(rounded);
  const c10::StreamId stream = current_stream();
  Block& block = blocks_[begin];
  block.bytes = rounded;
  block.stream = stream;
  const std::size_t segment = segment_bytes(rounded);
  Pool& pool = pools_[{stream, segment}];
  pool.used += rounded;
  if (pool.used > pool.reserved) {
    const std::size_t reserved = rounded_up(pool.used, segment);
    stats_.reserved_bytes[0].increase(reserved - pool.reserved);
    pool.reserved = reserved;
  }
  stats_.allocated_bytes[0].increase(rounded);
  std::memset(view_ + begin, 0xff, rounded);
  std::byte* address = card_ + begin;
  return {address, address, release_block, card};
}

c10::DeleterFnPtr CardMemory::raw_deleter() const { return release_block; }

void CardMemory::copy_data(
    void* to, const void* from, std::size_t bytes) const {
  std::memcpy(view(to), view(from), bytes);
}

void CardMemory::recordStream(const c10::DataPtr& memory, c10::Stream stream) {
  const std::lock_guard lock(card_lock());
  if (memory.get() == nullptr) return;
  blocks_.at(offset(memory.get())).recorded.insert(stream.id());
}

c10::CachingDeviceAllocator::DeviceStats CardMemory::getDeviceStats(
    c10::DeviceIndex) {
  const std::lock_guard lock(card_lock());
  TORCH_CHECK(initialized_, "Invalid device argument ");
  stats_.num_sync_all_streams = streams().waits();
  return stats_;
}

std::pair<std::size_t, std::size_t> CardMemory::getMemoryInfo(
    c10::DeviceIndex) {
  const std::lock_guard lock(card_lock());
  const auto used = stats_.allocated_bytes[0].current;
  return {capacity_ - static_cast<std::size_t>(used), capacity_};
}

void* CardMemory::view(const void* address) const {
  return address == nullptr ? nullptr : view_ + offset(address);
}

void CardMemory::use(const void* address, const Use& work, bool writes) {
  if (address == nullptr) return;
  const std::lock_guard lock(card_lock());
  const std::size_t at = offset(address);
  Block& block = std::prev(blocks_.upper_bound(at))->second;
  const Queue& queue = streams().queue(work.stream);
  const auto require = [&](const Use& before, const char* what) {
    if (streams().comes_after(queue, before)) return;
    race(
        "stream " + std::to_string(work.stream) + " does not wait for what " +
        "stream " + std::to_string(before.stream) + what);
  };
  require(block.written, " wrote");
  if (writes) {
    for (const auto& [stream, read] : block.read) require(read, " reads");
    block.written = work;
    block.read.clear();
  } else {
    block.read[work.stream] = work;
  }
}

void CardMemory::release(void* address) {
  const std::lock_guard lock(card_lock());
  const auto found = blocks_.find(offset(address));
  const Block block = found->second;
  std::map<c10::StreamId, Use> uses = block.read;
  if (block.written.ticket > 0) uses[block.written.stream] = block.written;
  Queue& home = streams().queue(block.stream);
  for (const auto& [stream, use] : uses) {
    // What was put off needs the bytes yet.
    streams().all_of(streams().queue(stream));
    if (!block.recorded.contains(stream) && !streams().comes_after(home, use)) {
      race(
          "memory made for stream " + std::to_string(block.stream) +
          " is given back while stream " + std::to_string(stream) +
          " may use it");
    }
  }
  blocks_.erase(found);
  pools_[{block.stream, segment_bytes(block.bytes)}].used -= block.bytes;
  stats_.allocated_bytes[0].decrease(block.bytes);
  give_back(offset(address), block.bytes);
}

void CardMemory::open() {
  const std::lock_guard lock(card_lock());
  if (opened_++ == 0) protect(PROT_READ | PROT_WRITE);
}

void CardMemory::close() {
  const std::lock_guard lock(card_lock());
  if (--opened_ == 0) protect(PROT_NONE);
}

void CardMemory::protect(int how) {
  if (mprotect(card_, capacity_, how) != 0) {
    throw std::runtime_error("the card's memory cannot be protected");
  }
}

void CardMemory::reserve_workspace() {
  if (workspaces_.insert({std::this_thread::get_id(), current_stream()})
          .second) {
    stats_.reserved_bytes[0].increase(kWorkspace);
  }
}

std::size_t CardMemory::offset(const void* address) const {
  const auto* at = static_cast<const std::byte*>(address);
  if (at < card_ || at >= card_ + capacity_) {
    race("work for the card names memory of the host");
  }
  return static_cast<std::size_t>(at - card_);
}

std::size_t CardMemory::find_room(std::size_t bytes) {
  for (const auto& [begin, size] : free_) {
    if (size < bytes) continue;
    const std::size_t at = begin;
    const std::size_t left = size - bytes;
    free_.erase(at);
    if (left > 0) free_[at + bytes] = left;
    return at;
  }
  TORCH_CHECK_WITH(
      OutOfMemoryError,
      false,
      "CUDA out of memory. Tried to allocate ",
      bytes,
      " bytes of the emulated card's ",
      capacity_);
}

void CardMemory::give_back(std::size_t begin, std::size_t bytes) {
  auto next = free_.lower_bound(begin);
  if (next != free_.end() && begin + bytes == next->first) {
    bytes += next->second;
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == begin) {
      before->second += bytes;
      return;
    }
  }
  free_[begin] = bytes;
}

CardMemory& card_memory() {
  static auto* memory = [] {  // outlives every tensor
    const auto mib = [](const char* name, std::size_t usual) {
      const char* told = std::getenv(name);
      return (told == nullptr ? usual : std::stoul(told)) << 20;
    };
    return new CardMemory(
        mib("FETTLE_EMULATED_CARD_MIB", 4096),
        mib("FETTLE_EMULATED_CARD_TAKEN_MIB", 0));
  }();
  return *memory;
}

namespace {

const bool registered = [] {
  c10::SetAllocator(c10::kCUDA, &card_memory());
  return true;
}();

}  // namespace
}  // namespace fettle::kernels::emulated
