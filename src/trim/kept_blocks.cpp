// SPDX-License-Identifier: Apache-2.0
#include "trim/kept_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "core/error.h"

namespace fettle::trim {
namespace {

using model::Role;
using model::WeightId;

std::optional<model::BlockGrid> blocks_of(
    const model::ModelReader& reader, const WeightId& id) {
  const model::StoredForm* const form = reader.stored_form(id);
  return form == nullptr ? std::nullopt : form->blocks();
}

// Neurons of a matrix that share scales.
std::int64_t block_side(const model::BlockGrid& grid, Role role) {
  return role == Role::kExpertDown ? grid.cols : grid.rows;
}

// The last block of an expert may be short, and is then the last that is kept.
bool are_whole_blocks(
    const std::vector<std::int64_t>& neurons,
    std::int64_t block,
    std::int64_t width) {
  for (std::size_t i = 0; i < neurons.size();) {
    const std::int64_t first = neurons[i];
    const std::int64_t size = std::min(block, width - first);
    if (first % block != 0) return false;
    if (std::ssize(neurons) - static_cast<std::int64_t>(i) < size) return false;
    if (neurons[i + size - 1] != first + size - 1) return false;
    i += static_cast<std::size_t>(size);
  }
  return true;
}

// E4M3 has no infinity, and one NaN of either sign; 4-bit floats have neither.
void require_numbers(
    const model::BlockGrid& grid,
    const at::Tensor& codes,
    const std::string& name) {
  if (grid.bits < 8) return;
  if (!codes.bitwise_and(0x7f).eq(0x7f).any().item<bool>()) return;
  throw UserError(
      "trim",
      name,
      "expected finite values, found NaN; nothing was written. Perhaps a "
      "damaged file?");
}

}  // namespace

model::WeightForm kept_form(
    const model::ModelReader& reader, const WeightId& id) {
  model::WeightForm form = reader.form(id);
  form.blocks = blocks_of(reader, id);
  return form;
}

std::int64_t kept_unit(const model::ModelReader& reader) {
  std::int64_t unit = 1;
  for (const WeightId& id : model::model_weights(reader.config())) {
    if (!model::is_expert_role(id.role)) continue;
    const auto grid = blocks_of(reader, id);
    if (grid) unit = std::lcm(unit, block_side(*grid, id.role));
  }
  return unit;
}

std::string why_not_kept(
    const model::ModelReader& reader, const KeptChanges& changes) {
  for (const WeightId& id : model::model_weights(reader.config())) {
    const model::StoredForm* const form = reader.stored_form(id);
    if (form == nullptr || form->packed() || form->blocks()) continue;
    return fmt::format(
        "{} is {}, of which Fettle writes no part; fp8 in blocks and MXFP4 can "
        "be kept",
        model::weight_name(reader.config(), id),
        form->name());
  }
  if (!changes.refits) return {};
  return "repair ridge or joint, and merges, make new values, which the codes "
         "don't hold; use --repair none to keep the codes";
}

std::string why_not_kept(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const KeptChanges& changes) {
  if (std::string why = why_not_kept(reader, changes); !why.empty()) return why;
  for (const WeightId& id : model::model_weights(reader.config())) {
    if (!model::is_expert_role(id.role)) continue;
    const auto grid = blocks_of(reader, id);
    if (!grid) continue;
    const auto& experts = plan.layers[id.layer].experts;
    const auto kept =
        std::ranges::find(experts, id.expert, &artifact::ExpertPlan::expert);
    if (kept == experts.end()) continue;
    const std::int64_t width =
        reader.config().layers[id.layer].expert_widths[id.expert];
    const std::int64_t block = block_side(*grid, id.role);
    if (are_whole_blocks(kept->neurons, block, width)) continue;
    return fmt::format(
        "expert {} of layer {} keeps {} of {} neurons, which are no whole "
        "blocks of {}; plan with --stored keep to cut such blocks",
        id.expert,
        id.layer,
        kept->width(),
        width,
        block);
  }
  return {};
}

void require_kept(
    const model::ModelReader& reader,
    const artifact::TrimPlan& plan,
    const KeptChanges& changes) {
  const std::string why = why_not_kept(reader, plan, changes);
  if (why.empty()) return;
  throw UserError(
      "trim",
      "stored keep",
      why + ", or --stored bf16 to write the values in 16 bits");
}

at::Tensor kept_bytes(
    const model::ModelReader& reader,
    const WeightId& id,
    const std::vector<std::int64_t>* neurons) {
  const model::StoredForm& form = *reader.stored_form(id);
  const model::BlockGrid grid = *form.blocks();
  auto [codes, scales] = form.read_blocks(reader.checkpoint());
  require_numbers(grid, codes, form.spans()[0].tensor->name);
  if (neurons != nullptr) {
    const auto shape = model::weight_shape(reader.config(), id);
    const auto sides = grid.grid(shape);
    const std::int64_t axis = id.role == Role::kExpertDown ? 1 : 0;
    const std::int64_t block = block_side(grid, id.role);
    // Along a row, a byte may hold the codes of several neurons.
    const std::int64_t in_byte = axis == 1 ? 8 / grid.bits : 1;
    std::vector<std::int64_t> blocks, bytes;
    for (const std::int64_t neuron : *neurons) {
      if (neuron % block == 0) blocks.push_back(neuron / block);
      if (neuron % in_byte == 0) bytes.push_back(neuron / in_byte);
    }
    codes = codes.index_select(axis, at::tensor(bytes, at::kLong));
    const auto size = static_cast<std::int64_t>(io::size_of(grid.scale_type));
    scales = scales.view({sides[0], sides[1], size})
                 .index_select(axis, at::tensor(blocks, at::kLong));
  }
  return at::cat({codes.flatten(), scales.flatten()});
}

}  // namespace fettle::trim
