// SPDX-License-Identifier: Apache-2.0
// What the gated delta rule and the scan of Mamba-2 share, forward and
// backward: a chunk of up to 64 tokens of one sequence, as products. With L_i
// the sum of g up to token i, and S the chunk's first state [Dk, Dv], what is
// written solves
//   u_i = w_i (v_i - e^L_i Sᵀ k_i - Σ_{j < i} e^(L_i - L_j) (k_i·k_j) u_j),
// of which Mamba-2 has w_i v_i alone. Then
//   o_i = e^L_i Sᵀ q_i + Σ_{j ≤ i} e^(L_i - L_j) (q_i·k_j) u_j,
// and the next state is e^L S + Σ_j e^(L - L_j) k_j u_jᵀ, L being the last L_i.
#if defined(FETTLE_KERNELS_CPU_SCAN_CHUNK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_SCAN_CHUNK_INL_H_
#undef FETTLE_KERNELS_CPU_SCAN_CHUNK_INL_H_
#else
#define FETTLE_KERNELS_CPU_SCAN_CHUNK_INL_H_
#endif

#include "kernels/cpu/scan_task-inl.h"
#include "kernels/cpu/scan_turn-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// The chunk that a task works on. Matrices between tokens stand turned, [j, i]:
// a row for the token that was written, a column for the one that reads.
template <bool kDelta>
struct ScanChunk {
  ScanChunk(const ScanTask& task, Scratch& memory)
      : t(task),
        token_stride(padded_stride(kScanChunk)),
        q(memory.take(kScanChunk * t.key_stride)),
        k(memory.take(kScanChunk * t.key_stride)),
        q_turned(memory.take(t.key_size * token_stride)),
        k_turned(memory.take(kDelta ? t.key_size * token_stride : 0)),
        qk(memory.take(kScanChunk * token_stride)),
        kk(memory.take(kDelta ? kScanChunk * token_stride : 0)),
        v(memory.take(kScanChunk * t.value_stride)),
        u(memory.take(kScanChunk * t.value_stride)),
        read(memory.take(kDelta ? kScanChunk * t.value_stride : 0)),
        decay(memory.take(kScanChunk * token_stride)),
        seen(memory.take(kScanChunk * token_stride)),
        mixed(memory.take(kDelta ? kScanChunk * token_stride : 0)) {}

  // Keys and queries from token `begin` of the sequence on.
  void load_keys(std::size_t begin) {
    start = begin;
    rows = smaller(kScanChunk, t.length - begin);
    columns = whole_vectors(rows);
    const ScanArgs& a = t.a;
    const UnitRows queries{kDelta, a.eps, a.scale};
    const UnitRows keys{kDelta, a.eps, 1.0f};
    copy_rows(
        source(a.q, t.key_size, t.key_head), queries, t.key_stride, q, q_scale);
    copy_rows(
        source(a.k, t.key_size, t.key_head), keys, t.key_stride, k, k_scale);
    turn({q, t.key_stride, rows, t.key_size}, token_stride, q_turned);
    products(q_turned, qk);
    if constexpr (kDelta) {
      turn({k, t.key_stride, rows, t.key_size}, token_stride, k_turned);
      products(k_turned, kk);
    }
  }

  float* value(float* matrix, std::size_t row) const {
    return matrix + row * t.value_stride;
  }
  Source source(const Rows& x, std::size_t size, std::size_t of_head) const {
    const std::size_t at = t.first + start;
    return {
        static_cast<const float*>(x.data) + at * x.token_stride +
            of_head * x.head_stride,
        std::size_t(x.token_stride),
        rows,
        size};
  }

  const ScanTask& t;
  std::size_t start = 0, rows = 0, columns = 0;  // tokens, in whole vectors
  std::size_t head = 0;
  const std::size_t token_stride;
  float *q, *k, *q_turned, *k_turned;
  float *qk, *kk;       // [j, i], q_i·k_j and k_i·k_j
  float *v, *u, *read;  // [i, Dv]
  float* decay;         // e^(L_i - L_j) where j ≤ i, else 0
  float *seen, *mixed;  // qk and kk times it, kk where j < i alone
  float over = 0;       // e^L
  // L and what float32 leaves of it: a strong decay must not cost the later
  // ones their digits.
  float level[kScanChunk], level_rest[kScanChunk];
  float written[kScanChunk];
  float from_start[kScanChunk], to_end[kScanChunk];
  float q_scale[kScanChunk], k_scale[kScanChunk];

  // [j, i] of the keys and what is turned.
  void products(const float* turned, float* to) {
    multiply(
        {rows, columns, t.key_size},
        {k, t.key_stride, 1},
        {turned, token_stride},
        {to, token_stride},
        false);
  }
};

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
