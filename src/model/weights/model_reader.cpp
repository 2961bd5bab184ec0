// SPDX-License-Identifier: Apache-2.0
#include "model/weights/model_reader.h"

#include <algorithm>
#include <map>
#include <utility>

#include "core/error.h"
#include "model/weights/made_expert.h"
#include "model/weights/model_folder.h"
#include "model/weights/packed_layer.h"
#include "model/weights/stacked_rows.h"
#include "model/weights/weight_index.h"
#include "model/weights/weight_loading.h"
#include "model/weights/weight_view.h"

namespace fettle::model {
namespace {

// A view with two dimensions: a vector is one row.
at::Tensor as_matrix(const at::Tensor& tensor) {
  return tensor.dim() == 1 ? tensor.unsqueeze(0) : tensor;
}

// Of a piece of this shape; values of a vector are columns of its row.
RowRange range_of(const std::vector<std::int64_t>& shape, std::int64_t first) {
  return {first, shape[0], shape.size() > 1 ? shape[1] : 1};
}

std::shared_ptr<const WeightIndex> index_of(
    ModelConfig& config, const io::Checkpoint& checkpoint) {
  config.names = find_names(config, checkpoint);
  return std::make_shared<WeightIndex>(config, checkpoint);
}

}  // namespace

ModelReader::ModelReader(const std::filesystem::path& folder)
    : folder_(checked_model_folder(folder)),
      config_(read_model_config(folder.string())),
      checkpoint_(
          std::make_unique<io::Checkpoint>(io::Checkpoint::open(folder))),
      index_(index_of(config_, *checkpoint_)) {}

const std::vector<CarriedTensor>& ModelReader::carried() const {
  return index_->carried();
}

std::int64_t ModelReader::carried_bytes() const {
  std::int64_t bytes = 0;
  for (const CarriedTensor& carried : index_->carried()) {
    bytes += static_cast<std::int64_t>(carried.tensor->bytes());
  }
  return bytes;
}

at::ScalarType ModelReader::dtype(const WeightId& id) const {
  const WeightIndex::Place& place = index_->at(id);
  return place.form != nullptr ? place.form->type()
                               : scalar_type(place.tensor->dtype);
}

std::string ModelReader::name() const {
  const std::filesystem::path path =
      std::filesystem::absolute(folder_).lexically_normal();
  return model_name(path.has_filename() ? path : path.parent_path());
}

const std::vector<std::string>& ModelReader::left_out() const {
  return index_->left_out();
}

const PackedHeader* ModelReader::packed_header(const WeightId& id) const {
  return index_->at(id).packed();
}

const StoredForm* ModelReader::stored_form(const WeightId& id) const {
  return index_->at(id).form.get();
}

bool ModelReader::has_coded() const {
  return std::ranges::any_of(model_weights(config_), [&](const WeightId& id) {
    const StoredForm* const form = stored_form(id);
    return form != nullptr && form->packed() == nullptr;
  });
}

std::int64_t ModelReader::stored_bytes(const WeightId& id) const {
  const StoredForm* const form = stored_form(id);
  if (form != nullptr) return form->bytes();
  return weight_numel(config_, id) *
         static_cast<std::int64_t>(c10::elementSize(dtype(id)));
}

WeightForm ModelReader::form(const WeightId& id) const {
  const PackedHeader* header = packed_header(id);
  if (header == nullptr) return {.dtype = dtype(id)};
  return {
      .dtype = dtype(id),
      .packed_bytes = header->bytes(),
      .loaded_bytes = memory_bytes(*header)};
}

WeightForms ModelReader::forms() const {
  return [this](const WeightId& id) { return form(id); };
}

at::Tensor ModelReader::read_stored(const WeightId& id) const {
  const WeightIndex::Place& place = index_->at(id);
  if (place.packed() != nullptr) {
    return read_span(*checkpoint_, place.form->spans().front());
  }
  if (place.form != nullptr) return read(id);
  at::Tensor result =
      at::empty(weight_shape(config_, id), at::TensorOptions(dtype(id)));
  const at::Tensor rows = as_matrix(result);
  read_plain_rows(*checkpoint_, place, {0, rows.size(0), rows.size(1)}, rows);
  return result;
}

kernels::PackedMatrix ModelReader::read_packed(const WeightId& id) const {
  return from_stored(read_stored(id), index_->at(id).tensor->name);
}

at::Tensor ModelReader::read(const WeightId& id) const {
  const StoredForm* const form = stored_form(id);
  if (form == nullptr) return read_stored(id);
  const at::Tensor values = at::empty(weight_shape(config_, id), at::kFloat);
  form->open (*checkpoint_)(0, values);
  return values.to(form->type());
}

void ModelReader::read_rows(
    const WeightId& id, std::int64_t rows, const Rows& visit) const {
  const WeightIndex::Place& place = index_->at(id);
  std::vector<std::int64_t> shape = weight_shape(config_, id);
  const std::int64_t all = shape[0];
  StoredForm::Rows decode;
  if (place.form != nullptr) decode = place.form->open(*checkpoint_);
  for (std::int64_t first = 0; first < all; first += rows) {
    shape[0] = std::min(rows, all - first);
    at::Tensor piece =
        at::empty(shape, at::TensorOptions(decode ? at::kFloat : dtype(id)));
    if (decode) {
      decode(first, piece);
    } else {
      read_plain_rows(*checkpoint_, place, range_of(shape, first), piece);
    }
    visit(first, piece.to(at::kFloat));
  }
}

KeptPacked ModelReader::kept_packed(std::int64_t layer) const {
  return model::kept_packed(config_, layer, [this](const WeightId& id) {
    return packed_header(id) != nullptr;
  });
}

WeightCopy ModelReader::copy_of(
    const WeightId& id, const at::Tensor& view) const {
  const bool transposed = is_down_role(id.role);
  return {
      index_->at(id),
      transposed ? view.t() : as_matrix(view),
      transposed,
      /*first_row=*/0};
}

Mlp ModelReader::read_expert(
    std::int64_t layer, std::int64_t expert, at::TensorOptions options) const {
  std::vector<WeightCopy> copies;
  const Mlp made = made_expert(
      config_,
      layer,
      expert,
      options,
      [&](const WeightId& id, const at::Tensor& view) {
        copies.push_back(copy_of(id, view));
      });
  load_weights(*checkpoint_, copies);
  return made;
}

LayerWeights ModelReader::read_layer(
    std::int64_t layer, at::TensorOptions options, bool experts_apart) const {
  const std::vector<WeightId> ids = layer_weights(config_, layer);
  const KeptPacked kept = kept_packed(layer);
  const auto up = kept.find(kExpertRoles.up);
  const bool apart = experts_apart && up != kept.end() && !up->second;
  const auto is_apart = [&](Role role) {
    return apart && kExpertRoles.has(role);
  };
  LayerWeights weights = empty_layer(config_, layer, options, [&](Role role) {
    const auto found = kept.find(role);
    return found != kept.end() && !found->second && !is_apart(role);
  });
  if (apart) {
    weights.experts.make = [this, layer, options](std::int64_t e) {
      return read_expert(layer, e, options);
    };
  }
  std::vector<WeightCopy> copies;
  PackedLayer packed;
  for (const WeightId& id : ids) {
    if (is_apart(id.role)) continue;
    if (kept.at(id.role)) {
      StoredMatrix matrix;
      if (packed_header(id) != nullptr) {
        matrix.packed = read_packed(id);
      } else {
        matrix.dense =
            at::empty(weight_shape(config_, id), options.pinned_memory(false));
        copies.push_back({.from = index_->at(id), .into = matrix.dense});
      }
      packed.put(id, std::move(matrix));
      continue;
    }
    copies.push_back(copy_of(id, weight_view(weights, id)));
  }
  load_weights(*checkpoint_, copies);
  if (!packed.matrices().empty()) {
    weights.packed = std::make_shared<PackedLayer>(std::move(packed));
  }
  return weights;
}

at::Tensor ModelReader::read_global(Role role, at::ScalarType type) const {
  const at::Tensor whole = at::empty(weight_shape(config_, {role}), type);
  if (packed_header({role}) != nullptr) {
    kernels::unpack_rows(read_packed({role}), 0, whole);
  } else {
    const std::vector<WeightCopy> copies{
        {.from = index_->at({role}), .into = as_matrix(whole)}};
    load_weights(*checkpoint_, copies);
  }
  return whole;
}

at::Tensor ModelReader::read_global_rows(
    Role role, const at::Tensor& ids, at::ScalarType type) const {
  const WeightIndex::Place& place = index_->at({role});
  const bool packed = place.packed() != nullptr;
  if (place.form != nullptr && !packed) {
    return read_global(role, type).index_select(0, ids);
  }
  const auto [rows, places] =
      at::_unique(ids, /*sorted=*/true, /*return_inverse=*/true);
  const at::Tensor found =
      at::empty({rows.size(0), weight_shape(config_, {role})[1]}, type);
  const auto* row = rows.const_data_ptr<std::int64_t>();
  kernels::PackedMatrix matrix;
  if (packed) matrix = read_packed({role});
  std::vector<WeightCopy> copies;
  for (std::int64_t i = 0, end = 0; i < rows.size(0); i = end) {
    while (end < rows.size(0) && row[end] - row[i] == end - i) ++end;
    const at::Tensor into = found.narrow(0, i, end - i);
    if (packed) {
      kernels::unpack_rows(matrix, row[i], into);
    } else {
      copies.push_back({.from = place, .into = into, .first_row = row[i]});
    }
  }
  load_weights(*checkpoint_, copies);
  return found.index_select(0, places);
}

// transformers unties a head that the checkpoint holds with other values than
// the embeddings, whatever config.json says.
void ModelReader::check_tied_head() const {
  const std::string name = weight_name(config_, {Role::kLmHead});
  if (!config_.tie_word_embeddings || !checkpoint_->find(name)) return;
  if (stored_form({Role::kEmbedTokens}) != nullptr) {
    throw UserError(
        "weights",
        name,
        "is stored beside packed embeddings, though 'tie_word_embeddings' is "
        "true");
  }
  const std::string& embeddings = index_->at({Role::kEmbedTokens}).tensor->name;
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

LoadedBytes loaded_bytes(const ModelReader& reader, at::ScalarType type) {
  return loaded_bytes(reader.config(), reader.forms(), type);
}

}  // namespace fettle::model
