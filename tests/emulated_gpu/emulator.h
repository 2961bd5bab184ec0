// SPDX-License-Identifier: Apache-2.0
// Runs a kernel's threads on one thread of the CPU, block by block. Threads of
// a block are contexts that run until they wait, so that barriers and exchanges
// mean what they mean on a card; a kernel that would hang there is found out.
#pragma once

#include <functional>

namespace fettle::kernels::emulated {

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_size, unsigned y_size = 1, unsigned z_size = 1)
      : x(x_size), y(y_size), z(z_size) {}
};

struct Index {
  unsigned x = 0, y = 0, z = 0;
};

// Where the thread that runs stands.
struct Place {
  Index thread, block, threads, blocks;
  int warp = 32;  // FETTLE_EMULATED_WARP: 32 or 64
};
inline Place place;

// Runs `thread` for each of blocks.x * blocks.y blocks of `threads` threads,
// which must be whole warps. Throws std::logic_error where threads wait that
// never meet.
void run(dim3 blocks, int threads, const std::function<void()>& thread);

// What a card does before a kernel of a stream begins and when it has ended;
// nothing where kernels run without one.
struct Card {
  std::function<void(void* stream)> begin = [](void*) {};
  std::function<void()> end = [] {};
};
inline Card card;

// By a thread that runs: until all threads of the block that haven't ended are
// here.
void wait_for_block();

// The value of the lane whose number differs by `mask`. All lanes of the warp
// must ask.
float shuffle_xor(float value, int mask);

}  // namespace fettle::kernels::emulated
