// SPDX-License-Identifier: Apache-2.0
#include "emulator.h"

#include <setjmp.h>
#include <ucontext.h>

#include <array>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace fettle::kernels::emulated {
namespace {

constexpr std::size_t kStackBytes = 256 << 10;

enum class State { kRuns, kAtBlock, kAtWarp, kEnded };

// What runs on a stack of its own: a thread of the block, or the host.
struct Context {
  ucontext_t begin = {};
  jmp_buf left_off = {};
  bool begun = false;
  const void* stack = nullptr;
  std::size_t stack_bytes = 0;
};

struct Thread {
  Context context;
  std::vector<char> stack = std::vector<char>(kStackBytes);
  State state = State::kEnded;
  // What it shows to the other lanes, by turns: one is shown while the one
  // before may still be looked at.
  std::array<float, 2> shown = {};
  int turn = 0;
};

// Goes on where `to` left off; back when another comes to `from`.
void go_over(Context& from, Context& to) {
#if defined(__SANITIZE_ADDRESS__)
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, to.stack, to.stack_bytes);
  swapcontext(&from.begin, &to.begin);
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#else
  // swapcontext would ask the system for its mask of signals each time, and
  // take ten times as long.
  if (_setjmp(from.left_off) != 0) return;
  if (std::exchange(to.begun, true)) _longjmp(to.left_off, 1);
  setcontext(&to.begin);
#endif
}

int warp_size() {
  const char* told = std::getenv("FETTLE_EMULATED_WARP");
  return told == nullptr ? 32 : std::atoi(told);
}

// The threads of one block. Stacks are kept for the next.
class Block {
 public:
  void run(int threads, const std::function<void()>& kernel) {
    kernel_ = &kernel;
    count_ = static_cast<std::size_t>(threads);
    left_ = count_;
    at_block_ = 0;
    at_warp_.assign(count_ / static_cast<std::size_t>(place.warp), 0);
    while (threads_.size() < count_) begin(threads_.emplace_back());
    let_run(0, count_);
    host_.begun = true;
    now_ = 0;
    place.thread.x = 0;
    go_over(host_, threads_[0].context);
    if (left_ > 0) {
      threads_.clear();
      throw std::logic_error("threads of a block wait and never meet");
    }
  }

  void wait_for_block() {
    threads_[now_].state = State::kAtBlock;
    ++at_block_;
    let_block_go();
    go_on(threads_[now_].context);
  }

  float exchange(float value, int mask) {
    Thread& self = threads_[now_];
    const int turn = self.turn;
    self.turn = 1 - turn;
    self.shown[turn] = value;
    const std::size_t other = now_ ^ static_cast<std::size_t>(mask);
    wait_for_warp();
    return threads_[other].shown[turn];
  }

 private:
  static void enter();

  void begin(Thread& thread) {
    getcontext(&thread.context.begin);
    thread.context.stack = thread.stack.data();
    thread.context.stack_bytes = thread.stack.size();
    thread.context.begin.uc_stack.ss_sp = thread.stack.data();
    thread.context.begin.uc_stack.ss_size = thread.stack.size();
    thread.context.begin.uc_link = nullptr;
    makecontext(&thread.context.begin, &Block::enter, 0);
  }

  void body() {
#if defined(__SANITIZE_ADDRESS__)
    // The first thread learns of the stack that the host runs on.
    const void** stack = host_.stack == nullptr ? &host_.stack : nullptr;
    __sanitizer_finish_switch_fiber(nullptr, stack, &host_.stack_bytes);
#endif
    for (;;) {  // once a block
      (*kernel_)();
      threads_[now_].state = State::kEnded;
      --left_;
      let_block_go();
      go_on(threads_[now_].context);
    }
  }

  // Lets the next thread run that can, or the host where none can.
  void go_on(Context& from) {
    for (std::size_t i = 1; i <= count_; ++i) {
      const std::size_t next = (now_ + i) % count_;
      if (threads_[next].state != State::kRuns) continue;
      if (next == now_) return;
      now_ = next;
      place.thread.x = static_cast<unsigned>(next);
      return go_over(from, threads_[next].context);
    }
    go_over(from, host_);
  }

  // A lane that ended is waited for in vain: on a card its warp's exchange is
  // undefined.
  void wait_for_warp() {
    threads_[now_].state = State::kAtWarp;
    const auto lanes = static_cast<std::size_t>(place.warp);
    std::size_t& waiting = at_warp_[now_ / lanes];
    if (++waiting == lanes) {
      waiting = 0;
      let_run(now_ / lanes * lanes, lanes);
    }
    go_on(threads_[now_].context);
  }

  // Once all of its threads that haven't ended are waiting.
  void let_block_go() {
    if (left_ == 0 || at_block_ < left_) return;
    at_block_ = 0;
    for (std::size_t t = 0; t < count_; ++t) {
      if (threads_[t].state == State::kAtBlock) let_run(t, 1);
    }
  }

  void let_run(std::size_t first, std::size_t count) {
    for (std::size_t t = first; t < first + count; ++t) {
      threads_[t].state = State::kRuns;
    }
  }

  std::deque<Thread> threads_;  // contexts know their own address
  const std::function<void()>* kernel_ = nullptr;
  Context host_;
  std::size_t count_ = 0, now_ = 0, left_ = 0;
  std::size_t at_block_ = 0;          // threads that wait for the block
  std::vector<std::size_t> at_warp_;  // and lanes of each warp for the warp
};

Block& the_block() {
  static Block block;
  return block;
}

void Block::enter() { the_block().body(); }

}  // namespace

void run(dim3 blocks, int threads, const std::function<void()>& thread) {
  // Kernels are queued from any thread; there is one card.
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  place.warp = warp_size();
  if (threads <= 0 || threads % place.warp != 0) {
    throw std::logic_error("a block isn't made of whole warps");
  }
  place.blocks = {blocks.x, blocks.y, blocks.z};
  place.threads = {static_cast<unsigned>(threads), 1, 1};
  for (place.block.y = 0; place.block.y < blocks.y; ++place.block.y) {
    for (place.block.x = 0; place.block.x < blocks.x; ++place.block.x) {
      the_block().run(threads, thread);
    }
  }
}

void wait_for_block() { the_block().wait_for_block(); }

float shuffle_xor(float value, int mask) {
  return the_block().exchange(value, mask);
}

}  // namespace fettle::kernels::emulated
