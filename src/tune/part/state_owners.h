// SPDX-License-Identifier: Apache-2.0
// Which rank keeps the moments of what is trained and makes the updates. All
// ranks have the values, which a layer needs wherever it is loaded; a layer's
// gradient comes to its owner alone, and the owner sends the new values. The
// moments that another rank keeps are of the meta device: they have a shape and
// take no memory.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "ranks/shards.h"
#include "tune/part/adamw.h"

namespace fettle::tune {

class StateOwners {
 public:
  // What is outside of all layers, where a layer is asked for.
  static constexpr std::int64_t kGlobals = -1;

  StateOwners() = default;  // one process, which owns all
  explicit StateOwners(const ranks::Team& team);

  bool divide() const { return group_ != nullptr; }
  // Layers in turns; the last rank has what is outside of them.
  std::int64_t owner(std::int64_t layer) const;
  bool owns(std::int64_t layer) const;
  // How shards add up a gradient of `layer`.
  ranks::Reduction sum_of(std::int64_t layer) const;
  // Moments of 0 of a layer's values.
  AdamWState moments(std::int64_t layer, const at::Tensor& values) const;
  // Leaves a gradient with its owner alone.
  void leave(std::int64_t layer, at::Tensor& gradient) const;
  // Has all ranks hold what the owner has.
  void share(std::int64_t layer, const std::vector<at::Tensor>& values) const;
  // Whether this rank needs the tensor `name` of a saved state: all but the
  // moments of others.
  bool keeps(std::string_view name) const;

 private:
  ranks::Group* group_ = nullptr;
};

// The part of the layers' states that a rank keeps at most, with room for
// another layer's gradient while it is added up.
double state_share(std::int64_t layers, std::int64_t ranks);

}  // namespace fettle::tune
