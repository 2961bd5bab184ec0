// SPDX-License-Identifier: Apache-2.0
#include "model/weights/carried_tensors.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "model/family/text_part.h"
#include "model/family/weight_table.h"
#include "model/weights/packed_weight.h"

namespace fettle::model {
namespace {

// "model.layers.61." of a tensor in a layer behind the model's last.
std::string later_layer(const ModelConfig& config, std::string_view name) {
  const std::string begin = config.names.body + "layers.";
  if (!name.starts_with(begin)) return "";
  const char* const first = name.data() + begin.size();
  const char* const last = name.data() + name.size();
  std::int64_t layer = 0;
  const auto [end, error] = std::from_chars(first, last, layer);
  if (error != std::errc() || end == last || *end != '.') return "";
  if (layer < config.num_layers()) return "";
  return begin + std::to_string(layer) + ".";
}

// "mtp." or what else begins the names of a head that lies beside the layers.
std::string head_beside(const ModelConfig& config, std::string_view name) {
  for (const std::string& outer : {std::string(), config.names.body}) {
    if (name.starts_with(outer + "mtp.")) return outer + "mtp.";
    if (name.starts_with(outer + "mtp_")) return outer + "mtp_";
  }
  return "";
}

}  // namespace

TensorNames find_names(
    const ModelConfig& config, const io::Checkpoint& checkpoint) {
  const std::string row = row_name(config, {Role::kEmbedTokens});
  for (const TensorNames& names : possible_names(config.json)) {
    const std::string name = placed_name(names, row);
    if (checkpoint.find(name) != nullptr ||
        checkpoint.find(name + std::string(kPackedSuffix)) != nullptr) {
      return names;
    }
  }
  return config.names;
}

std::optional<CarriedTensor> carried_tensor(
    const ModelConfig& config,
    const io::Checkpoint& checkpoint,
    const io::TensorInfo& tensor) {
  const std::string_view name = tensor.name;
  if (std::string head = head_beside(config, name); !head.empty()) {
    return CarriedTensor{&tensor, CarriedKind::kMtp, std::move(head)};
  }
  if (std::string layer = later_layer(config, name); !layer.empty()) {
    if (checkpoint.find(layer + "eh_proj.weight") == nullptr) return {};
    return CarriedTensor{&tensor, CarriedKind::kMtp, std::move(layer)};
  }
  if (!has_text_part(config.json)) return {};
  for (const std::string_view part : carried_parts()) {
    if (!name.starts_with(part)) continue;
    return CarriedTensor{&tensor, CarriedKind::kPart, std::string(part)};
  }
  return {};
}

}  // namespace fettle::model
