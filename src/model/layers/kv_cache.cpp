// SPDX-License-Identifier: Apache-2.0
#include "model/layers/kv_cache.h"

#include <algorithm>

namespace fettle::model {

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
  key.narrow(0, length, new_key.size(0)).copy_(new_key);
  value.narrow(0, length, new_key.size(0)).copy_(new_value);
  length = total;
}

}  // namespace fettle::model
