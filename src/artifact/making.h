// SPDX-License-Identifier: Apache-2.0
// How a result was made, as its report says at the end.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace fettle::artifact {

struct Making {
  std::string command = {};  // as a shell takes it; empty: nothing is shown
  // Names and values, shown in this order.
  std::vector<std::pair<std::string, std::string>> facts = {};
};

}  // namespace fettle::artifact
