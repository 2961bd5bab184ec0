// SPDX-License-Identifier: Apache-2.0
// Bytes of a model by its parts, as people speak of them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>

#include "model/family/weight_roles.h"

namespace fettle::chain {

enum class FitPart {
  kExperts,
  kShared,  // shared experts
  kDense,   // MLPs of dense layers, and those beside experts
  kMixers,  // attention, convolutions, recurrences
  kOther,   // routers, norms, biases
  kEmbeddings,
  kHead,
  kCarried,  // what is copied and not read
};
inline constexpr std::size_t kFitParts = 8;

FitPart fit_part_of(model::Role role);
std::string_view fit_part_name(FitPart part);

class ByPart {
 public:
  std::int64_t& operator[](FitPart part) {
    return bytes_[static_cast<std::size_t>(part)];
  }
  std::int64_t operator[](FitPart part) const {
    return bytes_[static_cast<std::size_t>(part)];
  }
  // "experts 1.20 GiB, head 3.00 MiB": those that have bytes.
  std::string text() const;
  std::int64_t total() const {
    return std::accumulate(bytes_.begin(), bytes_.end(), std::int64_t{0});
  }

 private:
  std::array<std::int64_t, kFitParts> bytes_{};
};

}  // namespace fettle::chain
