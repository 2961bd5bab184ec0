// SPDX-License-Identifier: Apache-2.0
// A task of a scan: some heads of one key head and one sequence. Nothing that
// two tasks write is shared, so results do not depend on the number of threads.
#if defined(FETTLE_KERNELS_CPU_SCAN_TASK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FETTLE_KERNELS_CPU_SCAN_TASK_INL_H_
#undef FETTLE_KERNELS_CPU_SCAN_TASK_INL_H_
#else
#define FETTLE_KERNELS_CPU_SCAN_TASK_INL_H_
#endif

#include "kernels/cpu/scan_rows-inl.h"
#include "kernels/mixer_args.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

struct ScanTask {
  const ScanArgs& a;
  std::size_t sequence, key_head, part;
  std::size_t first, length;      // tokens
  std::size_t first_head, heads;  // value heads
  std::size_t key_size, value_size;
  std::size_t key_width, value_width;    // in whole vectors
  std::size_t key_stride, value_stride;  // of rows in scratch memory

  ScanTask(const ScanArgs& args, std::int64_t task) : a(args) {
    const std::size_t of_key = args.heads / args.key_heads;
    part = task % args.parts;
    key_head = task / args.parts % args.key_heads;
    sequence = task / args.parts / args.key_heads;
    first = args.starts[sequence];
    length = args.starts[sequence + 1] - first;
    const std::size_t begin = of_key * part / args.parts;
    first_head = key_head * of_key + begin;
    heads = of_key * (part + 1) / args.parts - begin;
    key_size = args.key_size;
    value_size = args.value_size;
    key_width = whole_vectors(key_size);
    value_width = whole_vectors(value_size);
    key_stride = padded_stride(key_size);
    value_stride = padded_stride(value_size);
  }
  std::size_t state_size() const { return key_size * value_stride; }
  // Index of value head `head` of the task and a token of the sequence, in an
  // array of [N, heads].
  std::size_t index(std::size_t head, std::size_t token) const {
    return (first + token) * a.heads + first_head + head;
  }
  float* given_state(std::size_t head) const {
    if (a.state == nullptr) return nullptr;
    const std::size_t at = sequence * a.heads + first_head + head;
    return a.state + at * key_size * value_size;
  }
};

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
