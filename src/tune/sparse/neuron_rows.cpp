// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/neuron_rows.h"

#include <algorithm>

namespace fettle::tune {

std::vector<std::int64_t> expert_offsets(const model::LayerConfig& layer) {
  std::vector<std::int64_t> offsets{0};
  for (const std::int64_t width : layer.expert_widths) {
    offsets.push_back(offsets.back() + width);
  }
  return offsets;
}

BankRows BankRows::to(at::Device device) const {
  return {gate.to(device), up.to(device), down.to(device)};
}

BankRows bank_rows(
    const at::Tensor& index, std::span<const std::int64_t> offsets) {
  const auto ranges = ranges_of(index, offsets);
  BankRows rows{index.clone(), index.clone(), index};
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    const std::int64_t count = ranges[e + 1] - ranges[e];
    // Before expert e lie 2 offsets[e] rows of gate_up, then its gate rows.
    rows.gate.narrow(0, ranges[e], count).add_(offsets[e]);
    rows.up.narrow(0, ranges[e], count).add_(offsets[e + 1]);
  }
  return rows;
}

void write_rows(
    const BankRows& rows, const at::Tensor& values, model::ExpertBank& bank) {
  if (values.size(1) == 0) return;
  const at::NoGradGuard no_grad;
  const at::Tensor typed = values.to(bank.down.scalar_type());
  bank.gate_up.index_copy_(0, rows.gate, typed[0]);
  bank.gate_up.index_copy_(0, rows.up, typed[1]);
  bank.down.index_copy_(0, rows.down, typed[2]);
}

UnitRows read_rows(
    const model::ModelReader& reader,
    std::int64_t layer,
    const at::Tensor& index) {
  const auto offsets = expert_offsets(reader.config().layers[layer]);
  const auto ranges = ranges_of(index, offsets);
  UnitRows rows{
      index,
      at::empty({3, index.size(0), reader.config().hidden_size}, at::kFloat)};
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    const std::int64_t count = ranges[e + 1] - ranges[e];
    if (count == 0) continue;
    const at::Tensor columns = index.narrow(0, ranges[e], count) - offsets[e];
    at::Tensor into = rows.values.narrow(1, ranges[e], count);
    const auto expert = static_cast<std::int64_t>(e);
    const auto read = [&](model::Role role) {
      return reader.read({role, layer, expert});
    };
    into[0].copy_(read(model::Role::kExpertGate).index_select(0, columns));
    into[1].copy_(read(model::Role::kExpertUp).index_select(0, columns));
    into[2].copy_(read(model::Role::kExpertDown).index_select(1, columns).t());
  }
  return rows;
}

}  // namespace fettle::tune
