// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <numeric>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "export/gguf/gguf_layer_kinds.h"
#include "export/gguf/gguf_metadata.h"
#include "export/gguf/gguf_names.h"
#include "export/stock_layout.h"

namespace fettle::exporter {
namespace {

using model::ModelConfig;
using model::Role;
using model::WeightId;

// Blocks of codes that experts' widths are filled up to.
constexpr std::array<std::int64_t, 2> kExpertUnits{32, 256};

bool is_vector(const WeightId& id, const std::vector<std::int64_t>& shape) {
  return shape.size() == 1 || id.role == Role::kSharedRouter;
}

// Groups end where columns that are neighbours do.
Levels moved(Levels levels, const GgufOrder& order) {
  if (order.run > 0 && levels.group > 0) {
    levels.group = std::gcd(levels.group, order.run);
  }
  return levels;
}

GgufTolerance tolerance_of(const ExportOptions& options) {
  return {.nearest = options.nearest || options.nearest_shape};
}

class TensorPlanner {
 public:
  TensorPlanner(
      const SourceForms& source,
      const ExportOptions& options,
      const ModelConfig& config)
      : source_(source),
        options_(options),
        config_(config),
        family_(gguf_family(config, tolerance_of(options))) {}

  std::vector<PlannedTensor> plan() const {
    std::vector<PlannedTensor> tensors;
    for (const WeightId& id : model::model_weights(config_)) {
      for (GgufPlace& place : gguf_places(config_, family_, id)) {
        const bool goes_on =
            !tensors.empty() && tensors.back().name == place.name;
        if (!goes_on) {
          tensors.push_back(
              {.name = std::move(place.name), .order = std::move(place.order)});
        }
        tensors.back().parts.push_back(id);
      }
    }
    if (config_.tie_word_embeddings && family_.demands_head) {
      tensors.push_back(
          {.name = gguf_name(family_, {Role::kLmHead}),
           .parts = {{Role::kEmbedTokens}}});
    }
    for (PlannedTensor& tensor : tensors) choose_type(tensor);
    at::Tensor divisors = rotary_divisors(config_, family_.architecture);
    if (divisors.defined()) {
      tensors.push_back(
          {.name = "rope_freqs.weight", .values = std::move(divisors)});
    }
    return tensors;
  }

  // Bytes of all experts' tensors, or the most there are where one has no type.
  std::int64_t expert_bytes() const {
    std::int64_t sum = 0;
    for (std::int64_t l = 0; l < config_.num_layers(); ++l) {
      std::map<Role, PlannedTensor> tensors;
      for (const WeightId& id : model::layer_weights(config_, l)) {
        if (!model::kExpertRoles.has(id.role)) continue;
        tensors[id.role].parts.push_back(id);
      }
      for (auto& [role, tensor] : tensors) {
        if (!find_type(tensor)) return std::numeric_limits<std::int64_t>::max();
        sum += static_cast<std::int64_t>(declared(config_, tensor).bytes);
      }
    }
    return sum;
  }

 private:
  bool empty(const WeightId& id) const {
    return model::weight_numel(source_.config, id) == 0;
  }

  // Whether all parts lie in blocks of MXFP4 and of the shape that is written.
  bool is_mxfp4(const PlannedTensor& tensor) const {
    return !options_.dtype &&
           std::ranges::all_of(tensor.parts, [&](const WeightId& id) {
             if (!source_.blocks) return false;
             const auto grid = source_.blocks(id);
             return grid && grid->bits == 4 &&
                    model::weight_shape(source_.config, id) ==
                        model::weight_shape(config_, id);
           });
  }

  // Sets the exact type, if there is one.
  bool find_type(PlannedTensor& tensor) const {
    if (is_mxfp4(tensor)) {
      tensor.type = BlockType::kMXFP4;
      return true;
    }
    std::vector<Levels> levels;
    std::int64_t plain = 0;
    for (const WeightId& id : tensor.parts) {
      if (empty(id)) continue;
      if (const auto* const header = source_.packed(id)) {
        levels.push_back(moved(levels_of(*header), tensor.order));
      } else {
        ++plain;
      }
    }
    if (levels.empty()) {
      tensor.type = plain_type(tensor);
      return true;
    }
    const auto type =
        exact_type(levels, part_shape(config_, tensor.parts[0]).second);
    if (plain > 0 || !type) return false;
    tensor.type = *type;
    return true;
  }

  void choose_type(PlannedTensor& tensor) const {
    if (find_type(tensor)) return;
    if (!options_.nearest) refuse(tensor);
    const std::int64_t cols = part_shape(config_, tensor.parts[0]).second;
    tensor.type = cols % block_weights(BlockType::kQ8_0) == 0 ? BlockType::kQ8_0
                                                              : BlockType::kF16;
    tensor.nearest = true;
  }

  // Of all its parts; what is no matrix, and routers, are always fp32.
  BlockType plain_type(const PlannedTensor& tensor) const {
    const WeightId& first = tensor.parts.front();
    if (model::role_info(first.role).kind != model::RoleKind::kMatrix) {
      return BlockType::kF32;
    }
    const auto dtype = [&](const WeightId& id) {
      return exported_dtype(source_, config_, options_, id);
    };
    const at::ScalarType type = dtype(first);
    const bool same = std::ranges::all_of(
        tensor.parts, [&](const auto& id) { return dtype(id) == type; });
    return same ? plain_block(type) : BlockType::kF32;
  }

  [[noreturn]] void refuse(const PlannedTensor& tensor) const {
    const std::int64_t cols = part_shape(config_, tensor.parts[0]).second;
    for (const WeightId& id : tensor.parts) {
      const std::string why = reason(tensor, id, cols);
      if (why.empty()) continue;
      throw UserError(
          "export",
          model::weight_name(source_.config, id),
          why + ", or export with --nearest to write the nearest values");
    }
    throw InternalError("no type holds " + tensor.name);
  }

  std::string reason(
      const PlannedTensor& tensor,
      const WeightId& id,
      std::int64_t cols) const {
    if (empty(id)) return "";
    const auto* const header = source_.packed(id);
    if (header == nullptr) {
      return "is plain where other experts are packed, and a GGUF tensor has "
             "one type for all: quantize all or none";
    }
    const std::int64_t least = block_weights(BlockType::kQ8_0);
    const std::string name = model::packed_name(*header);
    if (cols % least != 0) {
      return fmt::format(
          "is {} in rows of {} weights, no whole number of GGUF's blocks of "
          "{}: quantize with keep for it",
          name,
          cols,
          least);
    }
    if (header->groups() > 1 && header->group % least != 0) {
      return fmt::format(
          "is {} in groups of {}, which GGUF's blocks of {} would straddle: "
          "quantize with a --group that is a multiple of {}, or 0",
          name,
          header->group,
          least,
          least);
    }
    const std::int64_t run = tensor.order.run;
    if (run > 0 && header->groups() > 1 &&
        std::gcd(header->group, run) % least != 0) {
      return fmt::format(
          "is {} in groups of {}, which llama.cpp's order of value heads of {} "
          "would tear: quantize with keep for it",
          name,
          header->group,
          run);
    }
    const Levels levels = levels_of(*header);
    if (!exact_type(std::span(&levels, 1), cols)) {
      return fmt::format(
          "is {}, whose range no type of GGUF holds: quantize it with --zeros "
          "no",
          name);
    }
    return "";
  }

  const SourceForms& source_;
  const ExportOptions& options_;
  const ModelConfig& config_;
  const GgufFamily& family_;
};

bool packs(const SourceForms& source, Role role) {
  const auto ids = model::model_weights(source.config);
  return std::ranges::any_of(ids, [&](const WeightId& id) {
    return id.role == role && source.packed(id) != nullptr;
  });
}

ModelConfig padded_config(
    const SourceForms& source, const ExportOptions& options) {
  const ModelConfig stock = stock_config(source.config, options);
  gguf_family(stock, tolerance_of(options));
  MlpWidths widths = widest(stock);
  constexpr std::int64_t kUnit = kExpertUnits.front();
  if (packs(source, Role::kSharedDown)) {
    widths.shared = rounded_up(widths.shared, kUnit);
  }
  if (packs(source, Role::kDenseDown)) {
    widths.dense = rounded_up(widths.dense, kUnit);
  }
  if (!packs(source, Role::kExpertDown)) return with_widths(stock, widths);
  ModelConfig best;
  std::int64_t least = -1;
  for (const std::int64_t unit : kExpertUnits) {
    MlpWidths some = widths;
    some.expert = rounded_up(widths.expert, unit);
    ModelConfig config = with_widths(stock, some);
    const std::int64_t bytes =
        TensorPlanner(source, options, config).expert_bytes();
    if (least >= 0 && bytes >= least) continue;
    least = bytes;
    best = std::move(config);
  }
  return best;
}

}  // namespace

GgufPlan plan_gguf(const SourceForms& source, const ExportOptions& options) {
  GgufPlan plan;
  plan.config = padded_config(source, options);
  plan.tensors = TensorPlanner(source, options, plan.config).plan();
  return plan;
}

std::pair<std::int64_t, std::int64_t> part_shape(
    const ModelConfig& config, const WeightId& id) {
  const auto shape = model::weight_shape(config, id);
  if (shape.size() == 1) return {1, shape[0]};
  return {shape[0], shape[1]};
}

std::int64_t part_rows(const ModelConfig& config, const PlannedTensor& tensor) {
  return tensor.order.rows.defined()
             ? tensor.order.rows.size(0)
             : part_shape(config, tensor.parts.front()).first;
}

GgufTensor declared(const ModelConfig& config, const PlannedTensor& tensor) {
  if (tensor.parts.empty()) {
    return {
        .name = tensor.name,
        .sizes = {tensor.values.size(0)},
        .type = static_cast<std::uint32_t>(BlockType::kF32),
        .bytes = tensor.values.nbytes()};
  }
  const WeightId& first = tensor.parts.front();
  const std::int64_t rows = part_rows(config, tensor);
  const std::int64_t cols = part_shape(config, first).second;
  GgufTensor result{
      .name = tensor.name,
      .sizes = {cols},
      .type = static_cast<std::uint32_t>(tensor.type),
      .bytes = static_cast<std::uint64_t>(
          std::ssize(tensor.parts) * rows * row_bytes(tensor.type, cols))};
  if (!is_vector(first, model::weight_shape(config, first))) {
    result.sizes.push_back(rows);
  }
  if (model::is_expert_role(first.role)) {
    result.sizes.push_back(std::ssize(tensor.parts));
  }
  // llama.cpp has these of each head and of each group.
  if (first.role == Role::kMambaLogRate || first.role == Role::kMambaSkip) {
    result.sizes = {1, cols};
  }
  if (first.role == Role::kMambaNorm) {
    const std::int64_t groups = config.mamba.norm_groups;
    result.sizes = {cols / groups, groups};
  }
  return result;
}

}  // namespace fettle::exporter
