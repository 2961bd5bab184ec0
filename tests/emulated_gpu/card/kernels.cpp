// SPDX-License-Identifier: Apache-2.0
// Kernels on the emulated card: they run at once, in their stream's order, and
// alone may touch its memory.
#include "emulator.h"
#include "memory.h"

namespace fettle::kernels::emulated {
namespace {

const bool placed = [] {
  card.begin = [](void* stream) {
    const std::lock_guard lock(card_lock());
    const auto id =
        static_cast<c10::StreamId>(reinterpret_cast<std::intptr_t>(stream));
    streams().begin(streams().queue(id));
    card_memory().open();
  };
  card.end = [] { card_memory().close(); };
  return true;
}();

}  // namespace
}  // namespace fettle::kernels::emulated
