// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/mixers.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scan_memory.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scan.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/scan_head-inl.h"
#include "kernels/cpu/scan_steps-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

template <bool kDelta>
class ForwardScan {
 public:
  ForwardScan(const ScanTask& task, Scratch memory)
      : t_(task),
        chunk_(task, memory),
        out_(memory.take(kScanChunk * t_.value_stride)),
        states_(memory.take(t_.heads * t_.state_size())) {}

  void run() {
    for (std::size_t head = 0; head < t_.heads; ++head) begin(head);
    for (std::size_t i = 0; i < t_.length; i += kScanChunk) {
      chunk_.load_keys(i);
      for (std::size_t head = 0; head < t_.heads; ++head) {
        load_head(chunk_, head);
        read(state(head));
        move_state(chunk_, state(head));
      }
    }
    if (t_.a.state != nullptr) {
      for (std::size_t head = 0; head < t_.heads; ++head) end(head);
    }
  }

 private:
  float* state(std::size_t head) const {
    return states_ + head * t_.state_size();
  }

  void begin(std::size_t head) {
    const float* given = t_.given_state(head);
    if (given == nullptr) {
      fill(state(head), t_.state_size(), 0.0f);
    } else {
      copy_rows(
          {given, t_.value_size, t_.key_size, t_.value_size},
          {false, 0.0f, 1.0f},
          t_.value_stride,
          state(head),
          nullptr);
    }
  }

  void end(std::size_t head) {
    float* const to = t_.given_state(head);
    for (std::size_t d = 0; d < t_.key_size; ++d) {
      const float* row = state(head) + d * t_.value_stride;
      write_row(row, t_.value_size, to + d * t_.value_size);
    }
  }

  // The outputs of the chunk's head.
  void read(const float* state) {
    const RowMajor<float> out{out_, t_.value_stride};
    multiply(
        {chunk_.rows, t_.value_width, t_.key_size},
        {chunk_.q, t_.key_stride, 1},
        {state, t_.value_stride},
        out,
        false);
    for (std::size_t i = 0; i < chunk_.rows; ++i) {
      float* const row = chunk_.value(out_, i);
      scale_to(row, t_.value_width, chunk_.from_start[i], row);
      if (t_.a.skip != nullptr) {
        const float skip = t_.a.skip[t_.first_head + chunk_.head];
        add_scaled(chunk_.value(chunk_.v, i), t_.value_width, skip, row);
      }
    }
    solve(chunk_, state);
    add_triangle(
        {chunk_.rows, t_.value_width},
        {chunk_.seen, 1, chunk_.token_stride},
        {chunk_.u, t_.value_stride},
        out);
    for (std::size_t i = 0; i < chunk_.rows; ++i) {
      float* const to =
          t_.a.out + t_.index(chunk_.head, chunk_.start + i) * t_.value_size;
      write_row(chunk_.value(out_, i), t_.value_size, to);
    }
  }

  const ScanTask& t_;
  ScanChunk<kDelta> chunk_;
  float *out_, *states_;
};

void Scan(const ScanArgs& a, std::int64_t task, float* memory) {
  const ScanTask t(a, task);
  if (t.length == 0) return;
  if (t.length <= std::size_t{kMostSteps}) {
    a.delta ? scan_steps<true>(t, memory) : scan_steps<false>(t, memory);
  } else if (a.delta) {
    ForwardScan<true>(t, Scratch(memory)).run();
  } else {
    ForwardScan<false>(t, Scratch(memory)).run();
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {
namespace {

// Values of scratch memory that a task takes: rows of up to 32 values more
// than they have.
std::int64_t scan_scratch(const ScanArgs& a, std::int64_t task) {
  const std::int64_t s = task / a.parts / a.key_heads;
  const std::int64_t key = a.key_size + 32, value = a.value_size + 32;
  if (a.starts[s + 1] - a.starts[s] <= kMostSteps) {
    return 2 * kMostSteps * key + (a.state == nullptr ? key * value : 0);
  }
  const std::int64_t tokens = kScanChunk + 32;
  const std::int64_t heads = (a.heads / a.key_heads + a.parts - 1) / a.parts;
  return tokens * (4 * key + 5 * tokens + 4 * value) + heads * key * value;
}

}  // namespace

HWY_EXPORT(Scan);

void cpu::scan(const ScanArgs& args) {
  const std::int64_t tasks = args.sequences * args.key_heads * args.parts;
  parallel_tasks(tasks, [&](std::int64_t task) {
    const ScanMemory memory(scan_scratch(args, task));
    HWY_DYNAMIC_DISPATCH(Scan)(args, task, memory.get());
  });
}

}  // namespace fettle::kernels
#endif
