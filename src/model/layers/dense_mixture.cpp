// SPDX-License-Identifier: Apache-2.0
#include "model/layers/dense_mixture.h"

#include "kernels/swiglu.h"
#include "model/weights/side_by_side.h"

namespace fettle::model {

at::Tensor output_products(
    const ExpertBank& bank, const at::Tensor& x, const at::Tensor& dy) {
  const at::NoGradGuard no_grad;
  // By expert, so that each writes a row of its own.
  at::Tensor products =
      at::zeros({bank.size(), x.size(0)}, x.options().dtype(at::kFloat));
  run_side_by_side(bank.size(), x.is_cpu(), [&](std::int64_t e) {
    at::Tensor row = products[e];
    if (bank.width(e) > 0) {
      const Mlp expert = bank.expert(e);
      at::Tensor inner = at::mm(x, expert.gate_up.t());
      if (bank.gate_up_bias.defined()) inner.add_(bank.gate_up_bias_of(e));
      const at::Tensor h = kernels::swiglu(inner, bank.activation);
      // The expert's output need not exist: <dy, down h> = <dy down, h>.
      row.copy_((h * at::mm(dy, expert.down.t())).sum(1, false, at::kFloat));
    }
    if (bank.constant.defined()) row.add_(at::mv(dy, bank.constant[e]));
  });
  return products.t().contiguous();
}

}  // namespace fettle::model
