// SPDX-License-Identifier: Apache-2.0
// Goes through a sequence's chunks twice: forward for the states before them,
// which stay in scratch memory, and back for the gradients.
#include "kernels/cpu/mixers.h"
#include "kernels/cpu/parallel.h"
#include "kernels/cpu/scan_memory.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/scan_backward.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/scan_head-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

template <bool kDelta>
class BackwardScan {
 public:
  BackwardScan(const ScanBackwardArgs& a, const ScanTask& task, Scratch memory)
      : a_(a),
        t_(task),
        c_(task, memory),
        dy_(memory.take(kScanChunk * t_.value_stride)),
        dv_(memory.take(kScanChunk * t_.value_stride)),
        found_(memory.take(kScanChunk * t_.value_stride)),
        u_turned_(memory.take(t_.value_size * c_.token_stride)),
        dv_turned_(memory.take(t_.value_size * c_.token_stride)),
        dy_turned_(memory.take(t_.value_size * c_.token_stride)),
        d_seen_(memory.take(kScanChunk * c_.token_stride)),
        d_mixed_(memory.take(kDelta ? kScanChunk * c_.token_stride : 0)),
        dq_(memory.take(kScanChunk * t_.key_stride)),
        dk_(memory.take(kScanChunk * t_.key_stride)),
        dq_turned_(memory.take(t_.key_size * c_.token_stride)),
        dk_turned_(memory.take(t_.key_size * c_.token_stride)),
        of_state_(memory.take(t_.key_size * c_.token_stride)),
        rows_(memory.take(kScanChunk * t_.key_stride)),
        d_state_(memory.zeros(t_.heads * t_.state_size())),
        states_(memory.take(0)) {}

  void run() {
    const std::size_t all = t_.heads * t_.state_size();
    const std::size_t chunks = (t_.length + kScanChunk - 1) / kScanChunk;
    fill(states_, all, 0.0f);
    for (std::size_t i = 0; i + 1 < chunks; ++i) {
      c_.load_keys(i * kScanChunk);
      for (std::size_t head = 0; head < t_.heads; ++head) {
        load_head(c_, head);
        solve(c_, state(i, head));
        write_row(state(i, head), t_.state_size(), state(i + 1, head));
        move_state(c_, state(i + 1, head));
      }
    }
    if (a_.dskip != nullptr) {
      for (std::size_t head = 0; head < t_.heads; ++head) skip(head) = 0.0f;
    }
    for (std::size_t i = chunks; i-- > 0;) turn_chunk(i);
  }

 private:
  float* state(std::size_t chunk, std::size_t head) const {
    return states_ + (chunk * t_.heads + head) * t_.state_size();
  }
  float& skip(std::size_t head) const {
    return a_.dskip[t_.sequence * t_.a.heads + t_.first_head + head];
  }

  void turn_chunk(std::size_t i) {
    c_.load_keys(i * kScanChunk);
    fill(dq_, c_.rows * t_.key_stride, 0.0f);
    fill(dk_, c_.rows * t_.key_stride, 0.0f);
    fill(dq_turned_, t_.key_size * c_.token_stride, 0.0f);
    fill(dk_turned_, t_.key_size * c_.token_stride, 0.0f);
    for (std::size_t head = 0; head < t_.heads; ++head) {
      load_head(c_, head);
      turn_head(state(i, head), d_state_ + head * t_.state_size());
    }
    write_keys(dq_, dq_turned_, c_.q, c_.q_scale, a_.dq);
    write_keys(dk_, dk_turned_, c_.k, c_.k_scale, a_.dk);
  }

  void turn_head(const float* state, float* d_next) {
    fill(d_g_, kScanChunk, 0.0f);
    fill(d_level_, kScanChunk, 0.0f);
    copy_rows(
        c_.source(a_.d_out, t_.value_size, t_.first_head + c_.head),
        {false, 0.0f, 1.0f},
        t_.value_stride,
        dy_,
        nullptr);
    turn_rows(dy_, dy_turned_);
    turn_skip();
    solve(c_, state);
    turn_rows(c_.u, u_turned_);
    find_written(d_next);
    turn_rows(dv_, dv_turned_);
    weigh<false>(dy_turned_, c_.qk, d_seen_);
    if constexpr (kDelta) weigh<true>(dv_turned_, c_.kk, d_mixed_);
    add_keys();
    write_values();
    add_states(state, d_next);
    write_levels();
  }

  void turn_rows(const float* from, float* to) const {
    turn({from, t_.value_stride, c_.rows, t_.value_size}, c_.token_stride, to);
  }

  void turn_skip() {
    if (a_.dskip == nullptr) return;
    float sum = 0;
    for (std::size_t i = 0; i < c_.rows; ++i) {
      sum += dot(c_.value(c_.v, i), c_.value(dy_, i), t_.value_size);
    }
    skip(c_.head) += sum;
  }

  // dv, through what the chunk's tokens wrote: from later outputs, from the
  // next state, and from what later tokens found and so did not write.
  void find_written(const float* d_next) {
    multiply(
        {c_.rows, t_.value_width, t_.key_size},
        {c_.k, t_.key_stride, 1},
        {d_next, t_.value_stride},
        {found_, t_.value_stride},
        false);
    float sum = 0;  // of what earlier tokens leave to the next chunk
    for (std::size_t j = 0; j < c_.rows; ++j) {
      float* const row = c_.value(found_, j);
      scale_to(row, t_.value_width, c_.to_end[j], row);
      d_g_[j] += sum;
      sum += dot(row, c_.value(c_.u, j), t_.value_size);
    }
    add_triangle(
        {c_.rows, t_.value_width, /*upper=*/true},
        {c_.seen, c_.token_stride, 1},
        {dy_, t_.value_stride},
        {found_, t_.value_stride});
    for (std::size_t end = c_.rows; end > 0;) {
      const std::size_t begin = (end - 1) / kStep * kStep;
      if constexpr (kDelta) subtract(begin, end);
      for (std::size_t r = end; r-- > begin;) {
        float* const row = c_.value(found_, r);
        if constexpr (kDelta) {
          for (std::size_t i = r + 1; i < end; ++i) {
            const float by = -c_.mixed[r * c_.token_stride + i];
            add_scaled(c_.value(dv_, i), t_.value_width, by, row);
          }
        }
        scale_to(row, t_.value_width, c_.written[r], c_.value(dv_, r));
        // c_.v holds what w was times of.
        a_.dwrite[t_.index(c_.head, c_.start + r)] =
            dot(row, c_.value(c_.v, r), t_.value_size);
      }
      end = begin;
    }
  }

  // What tokens from `end` on found of those of [begin, end).
  void subtract(std::size_t begin, std::size_t end) {
    if (end == c_.rows) return;
    float negative[kStep * kScanChunk];
    for (std::size_t r = begin; r < end; ++r) {
      for (std::size_t i = end; i < c_.rows; ++i) {
        negative[(r - begin) * kScanChunk + i - end] =
            -c_.mixed[r * c_.token_stride + i];
      }
    }
    multiply(
        {end - begin, t_.value_width, c_.rows - end},
        {negative, kScanChunk, 1},
        {c_.value(dv_, end), t_.value_stride},
        {c_.value(found_, begin), t_.value_stride},
        true);
  }

  // The gradients [j, i] of products between tokens from those of u and of
  // what reads it. A token's g counts in the pairs that it lies between; these
  // are summed as they are, since sums of L's parts would cancel.
  template <bool kStrict>
  void weigh(const float* reads, const float* products, float* to) {
    multiply(
        {c_.rows, c_.columns, t_.value_size},
        {c_.u, t_.value_stride, 1},
        {reads, c_.token_stride},
        {to, c_.token_stride},
        false);
    float above[kScanChunk];  // of products with earlier tokens
    fill(above, c_.columns, 0.0f);
    for (std::size_t j = 0; j < c_.rows; ++j) {
      const std::size_t at = j * c_.token_stride;
      d_g_[j] += weigh_row<kStrict>(
          j, {c_.decay + at, products + at}, to + at, above, c_.columns);
    }
  }

  struct WeighedRow {
    const float *decay, *products;
  };

  // Row j. Returns the sum of the products that token j lies between.
  template <bool kStrict>
  static HWY_INLINE float weigh_row(
      std::size_t j,
      const WeighedRow& by,
      float* to,
      float* above,
      std::size_t columns) {
    const D d;
    const V row = hn::Set(d, static_cast<float>(j));
    V all = hn::Zero(d);
    for (std::size_t i = 0; i < columns; i += hn::Lanes(d)) {
      const V column = hn::Iota(d, static_cast<float>(i));
      const V before = hn::LoadU(d, above + i);
      all = hn::Add(all, hn::IfThenElseZero(hn::Ge(column, row), before));
      V g = hn::Mul(hn::LoadU(d, to + i), hn::LoadU(d, by.decay + i));
      if constexpr (kStrict) {
        g = hn::IfThenElseZero(hn::Gt(column, row), hn::Neg(g));
      }
      hn::StoreU(g, d, to + i);
      const V product = hn::Mul(g, hn::LoadU(d, by.products + i));
      hn::StoreU(hn::Add(before, product), d, above + i);
    }
    return hn::GetLane(hn::SumOfLanes(d, all));
  }

  // What products between tokens add to the gradients of queries and keys.
  void add_keys() {
    const Triangle later{c_.rows, t_.key_width, /*upper=*/true};
    const Triangle earlier{c_.rows, t_.key_width};
    const RowMajor<const float> q{c_.q, t_.key_stride}, k{c_.k, t_.key_stride};
    const RowMajor<float> dq{dq_, t_.key_stride}, dk{dk_, t_.key_stride};
    add_triangle(earlier, {d_seen_, 1, c_.token_stride}, k, dq);
    add_triangle(later, {d_seen_, c_.token_stride, 1}, q, dk);
    if constexpr (kDelta) {
      add_triangle(earlier, {d_mixed_, 1, c_.token_stride}, k, dk);
      add_triangle(later, {d_mixed_, c_.token_stride, 1}, k, dk);
    }
  }

  void write_values() {
    for (std::size_t i = 0; i < c_.rows; ++i) {
      const std::size_t at = t_.index(c_.head, c_.start + i);
      float* const to = a_.dv + at * t_.value_size;
      write_row(c_.value(dv_, i), t_.value_size, to);
      if (t_.a.skip != nullptr) {
        const V by = hn::Set(D(), t_.a.skip[t_.first_head + c_.head]);
        const float* dy = c_.value(dy_, i);
        for_row(t_.value_size, [&](std::size_t n, auto part) HWY_ATTR {
          store(
              hn::MulAdd(by, load(dy + n, part), load(to + n, part)),
              to + n,
              part);
        });
      }
    }
  }

  // What the chunk's first and next states add, and the gradient of the first
  // in the place of the next one's. Scales dy, dv and u.
  void add_states(const float* state, float* d_next) {
    if constexpr (kDelta) {
      for (std::size_t i = 0; i < c_.rows; ++i) {
        float* const row = c_.value(dv_, i);
        scale_to(row, t_.value_width, -c_.from_start[i], row);
        d_level_[i] += dot(row, c_.value(c_.read, i), t_.value_size);
      }
      scale_columns(dv_turned_, c_.from_start, -1.0f);
      add_of_state(state, dv_turned_, dk_turned_);
    }
    scale_columns(u_turned_, c_.to_end, 1.0f);
    add_of_state(d_next, u_turned_, dk_turned_);
    scale_columns(dy_turned_, c_.from_start, 1.0f);
    multiply_state(state, dy_turned_, of_state_, false);
    add_query_levels();

    const std::size_t size = t_.state_size();
    d_level_[c_.rows - 1] += c_.over * dot(state, d_next, size);
    scale_to(d_next, size, c_.over, d_next);
    for (std::size_t i = 0; i < c_.rows; ++i) {
      float* const row = c_.value(dy_, i);
      scale_to(row, t_.value_width, c_.from_start[i], row);
    }
    add_outer(c_.q, dy_, d_next);
    if constexpr (kDelta) add_outer(c_.k, dv_, d_next);
  }

  // by[i] · sign in each column of [Dv, i].
  void scale_columns(float* matrix, const float* by, float sign) const {
    for (std::size_t d = 0; d < t_.value_size; ++d) {
      float* const row = matrix + d * c_.token_stride;
      for (std::size_t i = 0; i < c_.rows; ++i) row[i] *= sign * by[i];
    }
  }

  void multiply_state(
      const float* state, const float* turned, float* to, bool add) const {
    multiply(
        {t_.key_size, c_.columns, t_.value_size},
        {state, t_.value_stride, 1},
        {turned, c_.token_stride},
        {to, c_.token_stride},
        add);
  }
  void add_of_state(const float* state, const float* turned, float* to) const {
    multiply_state(state, turned, to, true);
  }

  // L's part in what queries read of the state, which goes to their gradients.
  void add_query_levels() {
    for (std::size_t d = 0; d < t_.key_size; ++d) {
      const std::size_t at = d * c_.token_stride;
      for (std::size_t i = 0; i < c_.rows; ++i) {
        dq_turned_[at + i] += of_state_[at + i];
        d_level_[i] += of_state_[at + i] * c_.q_turned[at + i];
      }
    }
  }

  // d_state += keysᵀ values.
  void add_outer(const float* keys, const float* values, float* d_state) const {
    multiply(
        {t_.key_size, t_.value_width, c_.rows},
        {keys, 1, t_.key_stride},
        {values, t_.value_stride},
        {d_state, t_.value_stride},
        true);
  }

  // A token's g counts in what it and later ones have of the first state.
  void write_levels() {
    float sum = 0;
    for (std::size_t i = c_.rows; i-- > 0;) {
      sum += d_level_[i];
      a_.dg[t_.index(c_.head, c_.start + i)] = sum + d_g_[i];
    }
  }

  // The gradients of rows as they came, from those of rows of length 1.
  void write_keys(
      float* rows,
      const float* turned,
      const float* unit,
      const float* scales,
      float* to) {
    const ScanArgs& f = t_.a;
    const bool query = unit == c_.q;
    const std::size_t all = f.starts[f.sequences];
    turn({turned, c_.token_stride, t_.key_size, c_.rows}, t_.key_stride, rows_);
    for (std::size_t i = 0; i < c_.rows; ++i) {
      float* const row = rows + i * t_.key_stride;
      add_scaled(rows_ + i * t_.key_stride, t_.key_width, 1.0f, row);
      const std::size_t token = t_.part * all + t_.first + c_.start + i;
      float* const d_row =
          to + (token * f.key_heads + t_.key_head) * t_.key_size;
      write_unscaled(row, unit + i * t_.key_stride, scales[i], query, d_row);
    }
  }

  // With x̂ = x s: dx = s (dx̂ - x̂ ⟨dx̂, x̂⟩). Rows of queries are scaled behind
  // it, x̂ and its gradient alike.
  void write_unscaled(
      const float* row,
      const float* unit,
      float scale,
      bool query,
      float* to) const {
    const float factor = query ? t_.a.scale : 1.0f;
    float along = 0.0f;
    if constexpr (kDelta)
      along = dot(row, unit, t_.key_size) / (factor * factor);
    const V by = hn::Set(D(), scale * factor), down = hn::Set(D(), along);
    for_row(t_.key_size, [&](std::size_t d, auto part) HWY_ATTR {
      const V g =
          hn::NegMulAdd(down, load(unit + d, part), load(row + d, part));
      store(hn::Mul(by, g), to + d, part);
    });
  }

  const ScanBackwardArgs& a_;
  const ScanTask& t_;
  ScanChunk<kDelta> c_;
  // For one head, [i, Dv] and [Dv, i].
  float *dy_, *dv_, *found_;
  float *u_turned_, *dv_turned_, *dy_turned_;
  float *d_seen_, *d_mixed_;  // [j, i], of products between tokens
  // Of queries and keys, summed over heads, in two parts: [i, Dk] and [Dk, i].
  float *dq_, *dk_, *dq_turned_, *dk_turned_, *of_state_;
  float* rows_;
  float *d_state_, *states_;
  float d_g_[kScanChunk], d_level_[kScanChunk];
};

void TurnScan(const ScanBackwardArgs& a, std::int64_t task, float* memory) {
  const ScanTask t(a.forward, task);
  if (t.length == 0) {
    if (a.dskip != nullptr) {
      const std::size_t at = t.sequence * a.forward.heads + t.first_head;
      fill(a.dskip + at, t.heads, 0.0f);
    }
  } else if (a.forward.delta) {
    BackwardScan<true>(a, t, Scratch(memory)).run();
  } else {
    BackwardScan<false>(a, t, Scratch(memory)).run();
  }
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {
namespace {

// Values of scratch memory that a task takes: those of a chunk, and the states
// before all chunks of its sequence.
std::int64_t backward_scratch(const ScanArgs& a, std::int64_t task) {
  const std::int64_t s = task / a.parts / a.key_heads;
  const std::int64_t length = a.starts[s + 1] - a.starts[s];
  const std::int64_t chunks = (length + kScanChunk - 1) / kScanChunk;
  const std::int64_t key = a.key_size + 32, value = a.value_size + 32;
  const std::int64_t tokens = kScanChunk + 32;
  const std::int64_t heads = (a.heads / a.key_heads + a.parts - 1) / a.parts;
  return tokens * (10 * key + 7 * tokens + 9 * value) +
         (chunks + 1) * heads * key * value;
}

}  // namespace

HWY_EXPORT(TurnScan);

void cpu::scan_backward(const ScanBackwardArgs& args) {
  const ScanArgs& f = args.forward;
  parallel_tasks(f.sequences * f.key_heads * f.parts, [&](std::int64_t task) {
    const ScanMemory memory(backward_scratch(f, task));
    HWY_DYNAMIC_DISPATCH(TurnScan)(args, task, memory.get());
  });
}

}  // namespace fettle::kernels
#endif
