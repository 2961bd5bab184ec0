// SPDX-License-Identifier: Apache-2.0
#include <atomic>

#include "kernels/cpu/packed.h"
#include "kernels/cpu/parallel.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/packed_unpack.cpp"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/packed_row-inl.h"

HWY_BEFORE_NAMESPACE();
namespace fettle::kernels::HWY_NAMESPACE {

// A vector may reach into the next group, whose values are written later.
template <class T>
void unpack_group(
    const GroupScale& by,
    const std::int8_t* codes,
    T* out,
    Part group,
    Part row) {
  const std::size_t lanes = hn::Lanes(D());
  const V scale = hn::Set(D(), by.scale);
  const auto zero = hn::Set(Ints(), by.zero);
  for (std::size_t i = 0; i < group.count; i += lanes) {
    const V value = hn::Mul(numbers<true>(codes + i, zero), scale);
    if (i + lanes <= row.count) {
      store(value, out + i, Whole{});
    } else {
      store(value, out + i, Part{row.count - i});
    }
  }
}

template <class T>
bool unpack(
    const UnpackRowsArgs& a,
    std::int64_t begin,
    std::int64_t end,
    std::int8_t* codes) {
  const PackedArgs& m = a.matrix;
  for (std::int64_t r = begin; r < end; ++r) {
    if (!row_codes(m, a.first + r, codes)) return false;
    T* out = static_cast<T*>(a.out) + r * a.stride;
    for (std::int64_t g = 0, at = 0; g < m.groups; ++g, at += m.group) {
      const std::int64_t left = m.cols - at;
      const std::int64_t count = left < m.group ? left : m.group;
      unpack_group(
          group_scale(m, a.first + r, g),
          codes + at,
          out + at,
          Part{static_cast<std::size_t>(count)},
          Part{static_cast<std::size_t>(left)});
    }
  }
  return true;
}

bool UnpackRows(
    const UnpackRowsArgs& a,
    std::int64_t begin,
    std::int64_t end,
    std::int8_t* codes) {
  return a.dtype == DType::kFloat32 ? unpack<float>(a, begin, end, codes)
                                    : unpack<Bf16>(a, begin, end, codes);
}

}  // namespace fettle::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fettle::kernels {

HWY_EXPORT(UnpackRows);

bool cpu::unpack_rows(const UnpackRowsArgs& args) {
  std::atomic<bool> sound = true;
  parallel_rows(args.rows, args.matrix.cols, [&](auto begin, auto end) {
    const CodesMemory codes = memory_for_codes(args.matrix.cols);
    if (!HWY_DYNAMIC_DISPATCH(UnpackRows)(args, begin, end, codes.get())) {
      sound = false;
    }
  });
  return sound;
}

}  // namespace fettle::kernels
#endif
