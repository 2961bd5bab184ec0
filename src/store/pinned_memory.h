// SPDX-License-Identifier: Apache-2.0
// Memory of the host that a card copies to and from at the full rate of its
// bus.
#pragma once

#include <bit>
#include <cstdint>

namespace fettle::store {

// Bytes that libtorch takes for `bytes` of it: it allocates powers of two, and
// keeps what is freed.
inline std::int64_t pinned_bytes(std::int64_t bytes) {
  return static_cast<std::int64_t>(
      std::bit_ceil(static_cast<std::uint64_t>(bytes)));
}

}  // namespace fettle::store
