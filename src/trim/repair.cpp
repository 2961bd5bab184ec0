// SPDX-License-Identifier: Apache-2.0
#include "trim/repair.h"

namespace fettle::trim {

std::string_view name_of(Repair repair) {
  constexpr std::string_view kNames[] = {
      "none", "constant", "ridge", "ridge+constant", "joint"};
  return kNames[static_cast<int>(repair)];
}

bool adds_constants(Repair repair) {
  return repair == Repair::kConstant || repair == Repair::kRidgeConstant;
}

bool fits_down(Repair repair) {
  return repair == Repair::kRidge || repair == Repair::kRidgeConstant ||
         repair == Repair::kJoint;
}

}  // namespace fettle::trim
