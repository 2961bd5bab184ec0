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
  BankRows rows{{}, down.to(device)};
  for (const at::Tensor& input : inputs)
    rows.inputs.push_back(input.to(device));
  return rows;
}

std::int64_t planes_of(const model::ModelConfig& config) {
  return model::inputs_of(config.activation) + 1;
}

BankRows bank_rows(
    const at::Tensor& index,
    std::span<const std::int64_t> offsets,
    std::int64_t inputs) {
  const auto ranges = ranges_of(index, offsets);
  BankRows rows{{}, index};
  for (std::int64_t p = 0; p < inputs; ++p) {
    rows.inputs.push_back(index.clone());
    for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
      const std::int64_t count = ranges[e + 1] - ranges[e];
      const std::int64_t width = offsets[e + 1] - offsets[e];
      // Before expert e lie P offsets[e] rows of gate_up.
      rows.inputs.back()
          .narrow(0, ranges[e], count)
          .add_((inputs - 1) * offsets[e] + p * width);
    }
  }
  return rows;
}

void write_rows(
    const BankRows& rows, const at::Tensor& values, model::ExpertBank& bank) {
  if (values.size(1) == 0) return;
  const at::NoGradGuard no_grad;
  const at::Tensor typed = values.to(bank.down.scalar_type());
  std::int64_t plane = 0;
  for (const at::Tensor& input : rows.inputs) {
    bank.gate_up.index_copy_(0, input, typed[plane++]);
  }
  bank.down.index_copy_(0, rows.down, typed[plane]);
}

UnitRows read_rows(
    const model::ModelReader& reader,
    std::int64_t layer,
    const at::Tensor& index) {
  const model::ModelConfig& config = reader.config();
  const auto offsets = expert_offsets(config.layers[layer]);
  const auto ranges = ranges_of(index, offsets);
  const std::int64_t planes = planes_of(config);
  UnitRows rows{
      index,
      at::empty({planes, index.size(0), config.hidden_size}, at::kFloat)};
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    const std::int64_t count = ranges[e + 1] - ranges[e];
    if (count == 0) continue;
    const at::Tensor columns = index.narrow(0, ranges[e], count) - offsets[e];
    at::Tensor into = rows.values.narrow(1, ranges[e], count);
    const auto expert = static_cast<std::int64_t>(e);
    const auto read = [&](model::Role role) {
      return reader.read({role, layer, expert});
    };
    const auto down = read(model::Role::kExpertDown).index_select(1, columns);
    into[planes - 1].copy_(down.t());
    into[planes - 2].copy_(
        read(model::Role::kExpertUp).index_select(0, columns));
    if (planes == 2) continue;
    into[0].copy_(read(model::Role::kExpertGate).index_select(0, columns));
  }
  return rows;
}

}  // namespace fettle::tune
