// SPDX-License-Identifier: Apache-2.0
#include "tune/whole/stored_delta.h"

#include "artifact/tensor_file.h"
#include "core/error.h"
#include "model/weights/weight_view.h"
#include "tune/whole/weight_delta.h"

namespace fettle::tune {

StoredDelta::StoredDelta(
    const std::filesystem::path& path,
    std::string part,
    const model::ModelConfig& config)
    : part_(std::move(part)),
      file_(io::open_file(path)),
      header_(io::SafetensorsFile::parse(*file_)),
      layers_(config.layers.size()) {
  for (const model::WeightId& id : model::model_weights(config)) {
    const io::TensorInfo* info = header_.find(weight_key(part_, id));
    if (info == nullptr) continue;
    if (info->dtype != io::DType::kF32 ||
        info->shape != model::weight_shape(config, id)) {
      throw UserError(
          "adapter",
          path.string() + ": " + info->name,
          "expected fp32 of the model's shape, found another; the file is "
          "of another model");
    }
    (id.layer < 0 ? globals_ : layers_[id.layer]).push_back(id);
  }
}

at::Tensor StoredDelta::read(const model::WeightId& id) const {
  const io::TensorInfo* info = header_.find(weight_key(part_, id));
  FETTLE_ASSERT(info != nullptr);
  at::Tensor value = at::empty(info->shape, at::kFloat);
  file_->read_at(info->begin, artifact::writable_bytes(value));
  return value;
}

void StoredDelta::patch(
    std::int64_t layer, model::LayerWeights& weights) const {
  const at::NoGradGuard no_grad;
  for (const model::WeightId& id : layers_[layer]) {
    model::weight_view(weights, id).copy_(read(id));
  }
}

void StoredDelta::patch_globals(model::GlobalWeights& weights) const {
  const at::NoGradGuard no_grad;
  for (const model::WeightId& id : globals_) {
    model::weight_view(weights, id).copy_(read(id));
  }
}

bool StoredDelta::changes(const model::WeightId& id) const {
  return header_.find(weight_key(part_, id)) != nullptr;
}

at::Tensor StoredDelta::merge(
    const model::WeightId& id, const at::Tensor& base) const {
  const at::Tensor value = read(id);
  if (!at::isfinite(value).all().item<bool>()) {
    throw UserError(
        "adapter",
        weight_key(part_, id),
        "expected finite numbers, found a NaN or an infinity; tune again");
  }
  return value.view_as(base);
}

}  // namespace fettle::tune
