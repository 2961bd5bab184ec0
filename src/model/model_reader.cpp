// SPDX-License-Identifier: Apache-2.0
#include "model/model_reader.h"

#include <utility>

#include "core/error.h"
#include "model/weight_index.h"
#include "model/weight_loading.h"

namespace fettle::model {
namespace {

at::ScalarType loaded_type(Role role, at::ScalarType type) {
  const bool routing = role == Role::kRouter || role == Role::kRouterCorrection;
  return routing ? at::kFloat : type;
}

at::Tensor& attention_slot(AttentionWeights& weights, Role role) {
  switch (role) {
    case Role::kQProj:
      return weights.q_proj;
    case Role::kQBias:
      return weights.q_bias;
    case Role::kKProj:
      return weights.k_proj;
    case Role::kKBias:
      return weights.k_bias;
    case Role::kVProj:
      return weights.v_proj;
    case Role::kVBias:
      return weights.v_bias;
    case Role::kOProj:
      return weights.o_proj;
    case Role::kOBias:
      return weights.o_bias;
    case Role::kQNorm:
      return weights.q_norm;
    case Role::kKNorm:
      return weights.k_norm;
    case Role::kQAProj:
      return weights.q_a_proj;
    case Role::kQABias:
      return weights.q_a_bias;
    case Role::kQANorm:
      return weights.q_a_norm;
    case Role::kQBProj:
      return weights.q_b_proj;
    case Role::kKvAProj:
      return weights.kv_a_proj;
    case Role::kKvABias:
      return weights.kv_a_bias;
    case Role::kKvANorm:
      return weights.kv_a_norm;
    default:
      FETTLE_ASSERT(role == Role::kKvBProj);
      return weights.kv_b_proj;
  }
}

// The tensor that takes a whole weight as it is stored.
at::Tensor& slot(LayerWeights& weights, Role role) {
  switch (role) {
    case Role::kInputNorm:
      return weights.input_norm;
    case Role::kPostAttentionNorm:
      return weights.post_attention_norm;
    case Role::kRouter:
      return weights.router;
    case Role::kRouterCorrection:
      return weights.router_correction;
    case Role::kExpertConstant:
      return weights.experts.constant;
    case Role::kSharedRouter:
      return weights.shared_router;
    default:
      return attention_slot(weights.attention, role);
  }
}

Mlp empty_mlp(std::int64_t width, std::int64_t hidden, at::ScalarType type) {
  return {
      at::empty({2 * width, hidden}, type), at::empty({width, hidden}, type)};
}

ExpertBank empty_bank(
    const LayerConfig& layer, std::int64_t hidden, at::ScalarType type) {
  ExpertBank bank;
  bank.offsets = {0};
  for (const std::int64_t width : layer.expert_widths) {
    bank.offsets.push_back(bank.offsets.back() + width);
  }
  const std::int64_t total = bank.offsets.back();
  bank.gate_up = at::empty({2 * total, hidden}, type);
  bank.down = at::empty({total, hidden}, type);
  return bank;
}

// Where gate, up (each [I, H]) or down ([I, H], transposed) of a block of
// neurons goes: rows of the packed tensors, from neuron `first` on.
at::Tensor block_rows(
    const at::Tensor& gate_up,
    const at::Tensor& down,
    Role role,
    std::pair<std::int64_t, std::int64_t> neurons) {
  const auto [first, width] = neurons;
  switch (role) {
    case Role::kExpertGate:
    case Role::kSharedGate:
    case Role::kDenseGate:
      return gate_up.narrow(0, 2 * first, width);
    case Role::kExpertUp:
    case Role::kSharedUp:
    case Role::kDenseUp:
      return gate_up.narrow(0, 2 * first + width, width);
    default:
      return down.narrow(0, first, width);
  }
}

bool is_down(Role role) {
  return role == Role::kExpertDown || role == Role::kSharedDown ||
         role == Role::kDenseDown;
}

const Mlp* find_mlp(const LayerWeights& weights, Role role) {
  switch (role) {
    case Role::kSharedGate:
    case Role::kSharedUp:
    case Role::kSharedDown:
      return &weights.shared;
    case Role::kDenseGate:
    case Role::kDenseUp:
    case Role::kDenseDown:
      return &weights.dense;
    default:
      return nullptr;
  }
}

// A view with two dimensions: a vector is one row.
at::Tensor as_matrix(const at::Tensor& tensor) {
  return tensor.dim() == 1 ? tensor.unsqueeze(0) : tensor;
}

std::int64_t bytes_as(
    const ModelConfig& config, const WeightId& id, at::ScalarType type) {
  return weight_numel(config, id) * static_cast<std::int64_t>(c10::elementSize(
                                        loaded_type(id.role, type)));
}

}  // namespace

ModelReader::ModelReader(const std::filesystem::path& folder)
    : folder_(folder),
      config_(read_model_config(folder.string())),
      checkpoint_(
          std::make_unique<io::Checkpoint>(io::Checkpoint::open(folder))),
      index_(std::make_shared<WeightIndex>(config_, *checkpoint_)) {}

at::ScalarType ModelReader::dtype(const WeightId& id) const {
  return scalar_type(index_->at(id).tensor->dtype);
}

at::Tensor ModelReader::read(const WeightId& id) const {
  const WeightIndex::Place& place = index_->at(id);
  at::Tensor result = at::empty(
      weight_shape(config_, id),
      at::TensorOptions(scalar_type(place.tensor->dtype)));
  checkpoint_->read_range(
      place.tensor->name,
      place.offset,
      {static_cast<std::byte*>(result.data_ptr()), result.nbytes()});
  return result;
}

LayerWeights ModelReader::read_layer(
    std::int64_t layer, at::ScalarType type) const {
  const LayerConfig& shape = config_.layers.at(static_cast<std::size_t>(layer));
  const std::int64_t hidden = config_.hidden_size;
  LayerWeights weights;
  if (shape.sparse) {
    weights.experts = empty_bank(shape, hidden, type);
    if (shape.shared_width > 0) {
      weights.shared = empty_mlp(shape.shared_width, hidden, type);
    }
  } else {
    weights.dense = empty_mlp(shape.dense_width, hidden, type);
  }
  std::vector<WeightCopy> copies;
  for (const WeightId& id : layer_weights(config_, layer)) {
    WeightCopy copy{index_->at(id), {}, is_down(id.role)};
    if (is_expert_role(id.role)) {
      const ExpertBank& bank = weights.experts;
      copy.into = block_rows(
          bank.gate_up,
          bank.down,
          id.role,
          {bank.offsets[id.expert], bank.width(id.expert)});
    } else if (const Mlp* mlp = find_mlp(weights, id.role)) {
      copy.into =
          block_rows(mlp->gate_up, mlp->down, id.role, {0, mlp->down.size(0)});
    } else {
      at::Tensor& whole = slot(weights, id.role);
      whole = at::empty(weight_shape(config_, id), loaded_type(id.role, type));
      copy.into = as_matrix(whole);
    }
    copies.push_back(std::move(copy));
  }
  load_weights(*checkpoint_, copies);
  return weights;
}

GlobalWeights ModelReader::read_globals(at::ScalarType type) const {
  GlobalWeights weights;
  std::vector<WeightCopy> copies;
  const auto load = [&](Role role) {
    at::Tensor whole = at::empty(weight_shape(config_, {role}), type);
    copies.push_back({index_->at({role}), as_matrix(whole)});
    return whole;
  };
  weights.embed_tokens = load(Role::kEmbedTokens);
  weights.final_norm = load(Role::kFinalNorm);
  weights.lm_head =
      config_.tie_word_embeddings ? weights.embed_tokens : load(Role::kLmHead);
  load_weights(*checkpoint_, copies);
  check_tied_head();
  return weights;
}

// transformers unties a head that the checkpoint holds with other values than
// the embeddings, whatever config.json says.
void ModelReader::check_tied_head() const {
  const std::string name = weight_name(config_, {Role::kLmHead});
  if (!config_.tie_word_embeddings || !checkpoint_->find(name)) return;
  const std::string embeddings = weight_name(config_, {Role::kEmbedTokens});
  const std::uint64_t total = checkpoint_->require(name).bytes();
  bool same = total == checkpoint_->require(embeddings).bytes();
  std::vector<std::byte> head, embedding;
  for (std::uint64_t at = 0; same && at < total; at += head.size()) {
    head.resize(std::min<std::uint64_t>(total - at, 1 << 20));
    embedding.resize(head.size());
    checkpoint_->read_range(name, at, head);
    checkpoint_->read_range(embeddings, at, embedding);
    same = head == embedding;
  }
  if (!same) {
    throw UserError(
        "weights",
        name,
        "differs from the embeddings, though 'tie_word_embeddings' is true; "
        "set it to false in config.json to use the stored head");
  }
}

std::int64_t ModelReader::layer_bytes(
    std::int64_t layer, at::ScalarType type) const {
  std::int64_t total = 0;
  for (const WeightId& id : layer_weights(config_, layer)) {
    total += bytes_as(config_, id, type);
  }
  return total;
}

std::int64_t ModelReader::global_bytes(at::ScalarType type) const {
  std::int64_t total = bytes_as(config_, {Role::kEmbedTokens}, type) +
                       bytes_as(config_, {Role::kFinalNorm}, type);
  if (!config_.tie_word_embeddings) {
    total += bytes_as(config_, {Role::kLmHead}, type);
  }
  return total;
}

}  // namespace fettle::model
