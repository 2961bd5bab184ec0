// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_tasks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/attention_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/attention_group-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// The gradients of one key head, summed over the query heads that read it.
class BackwardGroup {
 public:
  BackwardGroup(const AttentionArgs& a, std::int64_t task, Scratch memory)
      : a_(a),
        g_(a, task),
        keys_(memory.take(g_.length * g_.key_width)),
        keys_turned_(memory.take(a.key_size * g_.padded_length)),
        values_turned_(memory.take(a.value_size * g_.padded_length)),
        dk_(memory.zeros(g_.length * g_.key_width)),
        dv_(memory.zeros(g_.length * g_.value_width)),
        q_(memory.take(kBlock * g_.key_width)),
        dq_(memory.take(kBlock * g_.key_width)),
        dy_(memory.take(kBlock * g_.value_width)),
        weights_(memory.take(kBlock * kBlock)),
        ds_(memory.take(kBlock * kBlock)) {
    copy_padded(g_.keys(), 1.0f, keys_);
    copy_turned(g_.keys(), g_.padded_length, keys_turned_);
    copy_turned(g_.values(), g_.padded_length, values_turned_);
  }

  void run() {
    for (std::size_t head = 0; head < g_.heads; ++head) {
      for (std::size_t i = 0; i < g_.length; i += kBlock) queries(head, i);
    }
    write(dk_, g_.key_width, a_.dk, a_.key_size);
    write(dv_, g_.value_width, a_.dv, a_.value_size);
  }

 private:
  // One tile of queries against all keys that it sees.
  void queries(std::size_t head, std::size_t i) {
    const std::size_t rows = smaller(kBlock, g_.length - i);
    const std::size_t depth = a_.key_size, size = a_.value_size;
    copy_padded(g_.queries(a_.q, depth, head, i, rows), a_.scale, q_);
    copy_padded(g_.queries(a_.d_out, size, head, i, rows), 1.0f, dy_);
    fill(dq_, rows * g_.key_width, 0.0f);
    for (std::size_t r = 0; r < rows; ++r) {
      const float* y = a_.out + g_.index(head, i + r) * size;
      const float* d = dy_ + r * g_.value_width;
      delta_[r] = 0;
      for (std::size_t c = 0; c < size; ++c) delta_[r] += y[c] * d[c];
      level_[r] = a_.lse[g_.index(head, i + r)];
    }
    for (std::size_t j = g_.first_tile(i); j < i + rows; j += kBlock) {
      weigh(i, j, rows);
      add_gradients(j, rows);
    }
    for (std::size_t r = 0; r < rows; ++r) {
      float* to = a_.dq + g_.index(head, i + r) * depth;
      const float* from = dq_ + r * g_.key_width;
      for (std::size_t c = 0; c < depth; ++c) to[c] = a_.scale * from[c];
    }
  }

  // The softmax's weights of a tile, and the gradients of its scores.
  void weigh(std::size_t i, std::size_t j, std::size_t rows) {
    multiply(
        {rows, kBlock, std::size_t(a_.key_size)},
        {q_, g_.key_width, 1},
        {keys_turned_ + j, g_.padded_length},
        {weights_, kBlock},
        false);
    multiply(
        {rows, kBlock, std::size_t(a_.value_size)},
        {dy_, g_.value_width, 1},
        {values_turned_ + j, g_.padded_length},
        {ds_, kBlock},
        false);
    for (std::size_t r = 0; r < rows; ++r) {
      float* const weights = weights_ + r * kBlock;
      exponentiate(weights, level_[r]);
      g_.mask(weights, i + r, j, 0.0f);
      softmax_backward(weights, ds_ + r * kBlock, delta_[r]);
    }
  }

  // ds = weights · (ds − delta).
  static HWY_INLINE void softmax_backward(
      const float* weights, float* ds, float delta) {
    const V level = hn::Set(D(), delta);
    for (std::size_t c = 0; c < kBlock; c += hn::Lanes(D())) {
      const V d = hn::Sub(hn::LoadU(D(), ds + c), level);
      hn::StoreU(hn::Mul(hn::LoadU(D(), weights + c), d), D(), ds + c);
    }
  }

  void add_gradients(std::size_t j, std::size_t rows) {
    const std::size_t keys = smaller(kBlock, g_.length - j);
    const std::size_t key_width = g_.key_width, value_width = g_.value_width;
    multiply(
        {keys, value_width, rows},
        {weights_, 1, kBlock},
        {dy_, value_width},
        {dv_ + j * value_width, value_width},
        true);
    multiply(
        {keys, key_width, rows},
        {ds_, 1, kBlock},
        {q_, key_width},
        {dk_ + j * key_width, key_width},
        true);
    multiply(
        {rows, key_width, keys},
        {ds_, kBlock, 1},
        {keys_ + j * key_width, key_width},
        {dq_, key_width},
        true);
  }

  void write(
      const float* from, std::size_t width, float* to, std::size_t size) const {
    for (std::size_t r = 0; r < g_.length; ++r) {
      float* const row =
          to + ((g_.first + r) * a_.kv_heads + g_.kv_head) * size;
      for (std::size_t c = 0; c < size; ++c) row[c] = from[r * width + c];
    }
  }

  const AttentionArgs& a_;
  const Group g_;
  float *keys_, *keys_turned_, *values_turned_, *dk_, *dv_;
  float *q_, *dq_, *dy_, *weights_, *ds_;
  // What the softmax's own gradient subtracts: ⟨dy, y⟩ of each query.
  float delta_[kBlock], level_[kBlock];
};

void Backward(const AttentionArgs& a, std::int64_t task, float* memory) {
  BackwardGroup(a, task, Scratch(memory)).run();
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(Backward);

void cpu::attention_backward(const AttentionArgs& args) {
  for_each_attention_task(args, [&](std::int64_t task, float* memory) {
    HWY_DYNAMIC_DISPATCH(Backward)(args, task, memory);
  });
}

}  // namespace fettle::kernels
#endif
