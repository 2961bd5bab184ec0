// SPDX-License-Identifier: Apache-2.0
#include "model/layers/kv_cache.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

namespace fettle::model {
namespace {

// Writes `rows` into `all` from row `first` on. A decoded token's few bytes
// take less than a copy of libtorch's does to begin.
void put(at::Tensor& all, std::int64_t first, const at::Tensor& rows) {
  if (!all.is_cpu() || !rows.is_cpu() || !rows.is_contiguous() ||
      rows.scalar_type() != all.scalar_type()) {
    all.narrow(0, first, rows.size(0)).copy_(rows);
  } else if (rows.nbytes() > 0) {
    auto* to = static_cast<std::byte*>(all.mutable_data_ptr());
    const std::int64_t row =
        static_cast<std::int64_t>(all.nbytes()) / all.size(0);
    std::memcpy(to + first * row, rows.const_data_ptr(), rows.nbytes());
  }
}

}  // namespace

void KvCache::append(const at::Tensor& new_key, const at::Tensor& new_value) {
  const std::int64_t total = length + new_key.size(0);
  if (!key.defined() || total > key.size(0)) {
    const std::int64_t capacity = std::max({2 * length, total, reserve});
    const auto grown = [&](const at::Tensor& old, const at::Tensor& like) {
      at::Tensor bigger =
          at::empty({capacity, like.size(1), like.size(2)}, like.options());
      if (length > 0)
        bigger.narrow(0, 0, length).copy_(old.narrow(0, 0, length));
      return bigger;
    };
    key = grown(key, new_key);
    value = grown(value, new_value);
  }
  put(key, length, new_key);
  put(value, length, new_value);
  length = total;
}

}  // namespace fettle::model
