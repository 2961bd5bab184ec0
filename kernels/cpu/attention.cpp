// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention.h"

#include <cmath>
#include <limits>

#include "kernels/cpu/attention_tasks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/attention_group-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// The running softmax of a tile's queries: maximum and sum of what was seen.
struct Running {
  float top[kBlock], sum[kBlock];
  Running() {
    fill(top, kBlock, -std::numeric_limits<float>::infinity());
    fill(sum, kBlock, 0.0f);
  }
};

// Takes a row of query r's scores in: leaves their weights relative to the new
// maximum, and scales what was summed before down to it.
HWY_INLINE void take_in(
    Running& seen, std::size_t r, float* scores, const RowMajor<float>& out) {
  const float before = seen.top[r], here = row_max(scores);
  const float top = before > here ? before : here;
  const float shrink = std::exp(before - top);
  seen.sum[r] = seen.sum[r] * shrink + exponentiate(scores, top);
  seen.top[r] = top;
  if (shrink != 1.0f) scale_row(out.data + r * out.stride, out.stride, shrink);
}

class ForwardGroup {
 public:
  ForwardGroup(const AttentionArgs& a, std::int64_t task, Scratch memory)
      : a_(a),
        g_(a, task),
        keys_(memory.take(a.key_size * g_.padded_length)),
        values_(memory.take(g_.length * g_.value_width)),
        q_(memory.take(kBlock * g_.key_width)),
        scores_(memory.take(kBlock * kBlock)),
        out_{memory.take(kBlock * g_.value_width), g_.value_width} {
    copy_turned(g_.keys(), g_.padded_length, keys_);
    copy_padded(g_.values(), 1.0f, values_);
  }

  void run() {
    for (std::size_t head = 0; head < g_.heads; ++head) {
      for (std::size_t i = 0; i < g_.length; i += kBlock) queries(head, i);
    }
  }

 private:
  void queries(std::size_t head, std::size_t i) {
    const std::size_t rows = smaller(kBlock, g_.length - i);
    const std::size_t size = a_.value_size;
    copy_padded(g_.queries(a_.q, a_.key_size, head, i, rows), a_.scale, q_);
    fill(out_.data, rows * out_.stride, 0.0f);
    Running seen;
    for (std::size_t j = g_.first_tile(i); j < i + rows; j += kBlock) {
      add_keys(i, j, rows, seen);
    }
    for (std::size_t r = 0; r < rows; ++r) {
      float* to = a_.out + g_.index(head, i + r) * size;
      const float* from = out_.data + r * out_.stride;
      for (std::size_t c = 0; c < size; ++c) to[c] = from[c] / seen.sum[r];
      a_.lse[g_.index(head, i + r)] = seen.top[r] + std::log(seen.sum[r]);
    }
  }

  void add_keys(std::size_t i, std::size_t j, std::size_t rows, Running& seen) {
    constexpr float kHidden = -std::numeric_limits<float>::infinity();
    multiply(
        {rows, kBlock, std::size_t(a_.key_size)},
        {q_, g_.key_width, 1},
        {keys_ + j, g_.padded_length},
        {scores_, kBlock},
        false);
    for (std::size_t r = 0; r < rows; ++r) {
      float* row = scores_ + r * kBlock;
      if (g_.mask(row, i + r, j, kHidden)) {
        take_in(seen, r, row, out_);
      } else {
        fill(row, kBlock, 0.0f);
      }
    }
    multiply(
        {rows, g_.value_width, smaller(kBlock, g_.length - j)},
        {scores_, kBlock, 1},
        {values_ + j * g_.value_width, g_.value_width},
        out_,
        true);
  }

  const AttentionArgs& a_;
  const Group g_;
  float *keys_, *values_, *q_, *scores_;
  const RowMajor<float> out_;
};

void Forward(const AttentionArgs& a, std::int64_t task, float* memory) {
  ForwardGroup(a, task, Scratch(memory)).run();
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(Forward);

void cpu::attention(const AttentionArgs& args) {
  for_each_attention_task(args, [&](std::int64_t task, float* memory) {
    HWY_DYNAMIC_DISPATCH(Forward)(args, task, memory);
  });
}

}  // namespace fettle::kernels
#endif
