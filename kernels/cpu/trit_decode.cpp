// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstring>
#include <memory>

#include "kernels/cpu/parallel.h"
#include "kernels/cpu/trit_code.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/trit_decode.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/trit_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// Decodes rows [begin, end) in `row`, which has room behind it. `out` is where
// row `begin` goes, or null. Returns the first damaged row, or -1.
std::int64_t DecodeTrits(
    const PackedArgs& m,
    std::int64_t begin,
    std::int64_t end,
    std::int8_t* row,
    std::int8_t* out) {
  for (std::int64_t r = begin; r < end; ++r) {
    if (!trit_row(m, r, row)) return r;
    if (out == nullptr) continue;
    std::memcpy(out, row, static_cast<std::size_t>(m.cols));
    out += m.cols;
  }
  return -1;
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(DecodeTrits);

std::int64_t cpu::decode_trits(
    const PackedArgs& matrix,
    std::int64_t first,
    std::int64_t n,
    std::int8_t* out) {
  std::atomic<std::int64_t> damaged = -1;
  parallel_rows(n, matrix.cols, [&](std::int64_t begin, std::int64_t end) {
    const auto row = std::make_unique_for_overwrite<std::int8_t[]>(
        static_cast<std::size_t>(matrix.cols + kBehindTrits));
    const std::int64_t found = HWY_DYNAMIC_DISPATCH(DecodeTrits)(
        matrix,
        first + begin,
        first + end,
        row.get(),
        out == nullptr ? nullptr : out + begin * matrix.cols);
    if (found < 0) return;
    std::int64_t known = damaged;
    while ((known < 0 || found < known) &&
           !damaged.compare_exchange_weak(known, found)) {
    }
  });
  return damaged;
}

}  // namespace fettle::kernels
#endif
