// SPDX-License-Identifier: Apache-2.0
// The recurrence of a scan for sequences of a few tokens. A block has columns
// of one head's state, a thread one of them, so that a row of the state is read
// by neighbours.
#include "kernels/gpu/gpu.h"
#include "kernels/gpu/row.h"

namespace fettle::kernels::gpu {
namespace {

constexpr int kThreads = 64;

// Copies a query or key of a token, and returns what it is to be scaled by.
__device__ inline float load_key(
    const ScanArgs& a,
    const Rows& rows,
    std::int64_t token,
    std::int64_t head,
    float* to) {
  const float* from = static_cast<const float*>(rows.data) +
                      token * rows.token_stride + head * rows.head_stride;
  float squares = 0.0f;
  for (std::int64_t d = threadIdx.x; d < a.key_size; d += kThreads) {
    const float v = from[d];
    to[d] = v;
    squares += v * v;
  }
  squares = over_block<Sum>(squares);
  return a.delta ? 1.0f / sqrtf(squares + a.eps) : 1.0f;
}

struct Step {
  float decay, write, skip, q_scale, k_scale;
};

// One token's column: of the output, and of the state, which moves on.
__device__ inline float step_column(
    const ScanArgs& a,
    const Step& step,
    const float* q,
    const float* k,
    float v,
    float* state) {
  float u = v;
  if (a.delta) {
    float read = 0.0f;
    for (std::int64_t d = 0; d < a.key_size; ++d) {
      read += k[d] * state[d * a.value_size];
    }
    u -= step.decay * step.k_scale * read;
  }
  u *= step.write * step.k_scale;
  float sum = 0.0f;
  for (std::int64_t d = 0; d < a.key_size; ++d) {
    const float s = step.decay * state[d * a.value_size] + k[d] * u;
    state[d * a.value_size] = s;
    sum += q[d] * s;
  }
  return sum * step.q_scale + step.skip * v;
}

__global__ void steps(const ScanArgs a) {
  __shared__ float q[kMostStepKeys], k[kMostStepKeys];
  const std::int64_t s = blockIdx.x / a.heads, head = blockIdx.x % a.heads;
  const std::int64_t c =
      static_cast<std::int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  const std::int64_t key_head = head / (a.heads / a.key_heads);
  float* state = a.state + (s * a.heads + head) * a.key_size * a.value_size;
  for (std::int64_t n = a.starts[s]; n < a.starts[s + 1]; ++n) {
    const std::int64_t at = n * a.heads + head;
    Step step;
    step.decay = expf(a.g[at]);
    step.write = a.write[at];
    step.skip = a.skip == nullptr ? 0.0f : a.skip[head];
    step.q_scale = a.scale * load_key(a, a.q, n, key_head, q);
    step.k_scale = load_key(a, a.k, n, key_head, k);
    if (c < a.value_size) {
      const float v = static_cast<const float*>(
          a.v.data)[n * a.v.token_stride + head * a.v.head_stride + c];
      a.out[at * a.value_size + c] = step_column(a, step, q, k, v, state + c);
    }
    __syncthreads();  // q and k are free for the next token
  }
}

}  // namespace

const char* scan_steps(const ScanArgs& a, void* stream) {
  const dim3 grid(
      static_cast<unsigned>(a.sequences * a.heads),
      blocks_for(a.value_size, kThreads));
  launch(steps, grid, kThreads, static_cast<Stream>(stream), a);
  return launch_result();
}

}  // namespace fettle::kernels::gpu
