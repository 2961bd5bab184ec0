// SPDX-License-Identifier: Apache-2.0
#include "artifact/written_tensors.h"

#include "artifact/model_writer.h"
#include "artifact/tensor_file.h"
#include "model/family/text_part.h"

namespace fettle::artifact {
namespace {

using model::Role;
using model::WeightId;

// Whether weights of the role lie in one piece behind those of another.
bool is_second(const model::ModelConfig& config, Role role) {
  const bool up = model::is_up_role(role) || role == Role::kExpertUpBias;
  return up && model::inputs_of(config.activation) > 1;
}

// The role whose weights lie in one piece with those of `role`; itself, if none
// do.
Role up_of(Role role) {
  for (const model::MlpRoles& mlp :
       {model::kExpertRoles, model::kSharedRoles, model::kDenseRoles}) {
    if (role == mlp.gate) return mlp.up;
  }
  return role == Role::kExpertGateBias ? Role::kExpertUpBias : role;
}

// All experts of the first one's layer, or gate and up of another MLP.
WrittenTensor stack_of(
    const model::ModelConfig& config,
    const WeightId& first,
    const model::WeightForms& form) {
  const model::WeightRow& row = model::weight_row(config, first.role);
  const bool one = first.expert < 0;
  const std::int64_t experts =
      one ? 1 : config.layers[first.layer].num_experts();
  WrittenTensor result;
  result.stacked = true;
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t expert = one ? -1 : e;
    result.pieces.push_back({{first.role, first.layer, expert}});
    const Role up = up_of(first.role);
    if (up == first.role) continue;
    result.pieces.back().push_back({up, first.layer, expert});
  }
  const std::string name =
      model::placed_name(config.names, model::expand_name(row.fused, first));
  if (form(first).blocks) {
    std::vector<std::int64_t> shape = model::weight_shape(config, first);
    shape[0] *= std::ssize(result.pieces.front());
    shape.insert(shape.begin(), experts);
    result.specs = mxfp4_specs(name, shape);
    return result;
  }
  std::vector<at::Tensor> like;
  for (const WeightId& id : result.pieces.front()) {
    like.push_back(
        at::empty(model::weight_shape(config, id), at::device(at::kMeta)));
  }
  std::vector<std::int64_t> shape = stacked_piece(row, like).sizes().vec();
  if (!one) shape.insert(shape.begin(), experts);
  result.specs = {{name, stored_type(form(first).dtype, name), shape}};
  return result;
}

}  // namespace

std::vector<WrittenTensor> written_tensors(
    const model::ModelConfig& config, const WrittenOptions& options) {
  std::vector<WrittenTensor> result;
  for (const WeightId& id : model::model_weights(config)) {
    const auto blocks = options.form(id).blocks;
    // Of fp8 in blocks, codes are kept expert by expert.
    const bool stacked = options.stock &&
                         model::weight_row(config, id.role).stacked_only &&
                         (!blocks || blocks->bits < 8);
    if (!stacked) {
      result.push_back(
          {.specs = tensor_specs(config, id, options.form(id)),
           .pieces = {{id}}});
    } else if (id.expert <= 0 && !is_second(config, id.role)) {
      result.push_back(stack_of(config, id, options.form));
    }
  }
  return result;
}

std::vector<io::TensorSpec> mxfp4_specs(
    const std::string& name, std::vector<std::int64_t> shape) {
  constexpr std::int64_t kBlock = 32;
  shape.back() /= kBlock;
  std::vector<std::int64_t> codes = shape;
  codes.push_back(kBlock / 2);
  return {
      {name + std::string(model::kBlocksSuffix), io::DType::kU8, codes},
      {name + std::string(model::kScalesSuffix), io::DType::kU8, shape}};
}

at::Tensor stacked_outputs(
    const model::WeightRow& row, const std::vector<at::Tensor>& parts) {
  if (parts.size() == 1) return parts[0];
  return row.order == model::StackOrder::kInterleaved
             ? at::stack(parts, 1).flatten(0, 1)
             : at::cat(parts);
}

at::Tensor stacked_piece(
    const model::WeightRow& row, const std::vector<at::Tensor>& parts) {
  const at::Tensor rows = stacked_outputs(row, parts);
  const bool turned = row.order == model::StackOrder::kInterleaved;
  return turned && rows.dim() == 2 ? rows.t() : rows;
}

}  // namespace fettle::artifact
