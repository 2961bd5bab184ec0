// SPDX-License-Identifier: Apache-2.0
#include "model/layers/layer_tap.h"

namespace fettle::model {

bool is_tapped(Role role) {
  return kExpertRoles.has(role) || is_attention_role(role);
}

at::Tensor ExpertGradView::d_gate() const {
  return inputs() > 1 ? d_gate_up.narrow(1, 0, width()) : at::Tensor();
}

at::Tensor ExpertGradView::d_up() const {
  return d_gate_up.narrow(1, d_gate_up.size(1) - width(), width());
}

void LayerTap::on_run_gradient(std::int64_t layer, const RunGradView& view) {
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
