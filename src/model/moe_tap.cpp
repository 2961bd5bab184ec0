// SPDX-License-Identifier: Apache-2.0
#include "model/moe_tap.h"

namespace fettle::model {

void MoeTap::on_run_gradient(std::int64_t layer, const RunGradView& view) {
  for_each_expert_of(
      view.run, view.dispatch, [&](std::int64_t e, const auto& rows) {
        on_expert_gradient(
            layer,
            {e,
             rows(view.x),
             rows(view.h),
             rows(view.dh),
             rows(view.d_gate_up),
             rows(view.dy),
             rows(view.weight)});
      });
}

}  // namespace fettle::model
