// SPDX-License-Identifier: Apache-2.0
#include "quant/memory.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <vector>

#include "artifact/model_writer.h"
#include "model/weights/loaded_bytes.h"
#include "quant/hessians.h"
#include "quant/layer_quantizer.h"
#include "quant/scheme.h"

namespace fettle::quant {
namespace {

using model::WeightId;

// A layer, or what is in none, once it is quantized.
struct Written {
  std::int64_t packed = 0;   // its weights that are
  std::int64_t bytes = 0;    // all that is written
  std::int64_t largest = 0;  // of one tensor
  std::int64_t working = 0;  // a thread's, for one weight
};

// One weight.
class Weight {
 public:
  Weight(
      const model::ModelReader& reader,
      const QuantOptions& options,
      const WeightId& id)
      : stored_(artifact::weight_bytes(reader.config(), id, reader.form(id))),
        shape_(model::weight_shape(reader.config(), id)) {
    if (!part_of(id.role) || model::weight_numel(reader.config(), id) == 0) {
      return;
    }
    if (!options.scheme) {
      // Few weights a scale; and in trits, which take the most codes.
      scheme_ = {.bits = 8, .coded = true};
      grid_.group = 16;
      return;
    }
    scheme_ = options.scheme(id);
    grid_ = options.gptq.grid;
  }

  bool packs() const { return !scheme_.keep; }

  std::int64_t bytes() const {
    if (!packs()) return stored_;
    const std::int64_t packed =
        planned_header(scheme_, grid_, shape_[0], shape_[1]).bytes();
    return scheme_.coded ? std::max(stored_, packed) : packed;
  }

  // While it is rounded; with moments, beside another with the same input.
  std::int64_t working(bool has_moments) const {
    if (!packs()) return 0;
    return has_moments
               ? site_working_bytes(2 * shape_[0], shape_[1])
               : rows_working_bytes(shape_[0], shape_[1], scheme_.coded);
  }

 private:
  std::int64_t stored_;
  std::vector<std::int64_t> shape_;
  Scheme scheme_{.keep = true};
  GridOptions grid_;
};

Written written(
    const model::ModelReader& reader,
    const QuantOptions& options,
    const std::vector<WeightId>& ids,
    bool has_moments) {
  Written all;
  for (const WeightId& id : ids) {
    const Weight weight(reader, options, id);
    all.bytes += weight.bytes();
    all.largest = std::max(all.largest, weight.bytes());
    if (weight.packs()) all.packed += weight.bytes();
    all.working = std::max(all.working, weight.working(has_moments));
  }
  return all;
}

// Packed weights are turned into bytes one by one, and then written at once.
std::int64_t writing_bytes(const Written& layer) {
  return layer.bytes + layer.largest;
}

// Embeddings and head.
std::int64_t outer_bytes(
    const model::ModelReader& reader, const QuantOptions& options) {
  std::vector<WeightId> ids = model::model_weights(reader.config());
  std::erase_if(ids, [](const WeightId& id) { return id.layer >= 0; });
  const Written outer = written(reader, options, ids, false);
  // There are two of them.
  const std::int64_t at_once = std::min(at::get_num_threads(), 2);
  return std::max(outer.packed + at_once * outer.working, writing_bytes(outer));
}

std::int64_t moments_of_layer(
    const model::ModelConfig& config,
    std::int64_t layer,
    std::int64_t moment_bytes) {
  std::int64_t experts = 0;
  std::int64_t largest = 0;
  for (std::int64_t e = 0; e < config.layers[layer].num_experts(); ++e) {
    const std::int64_t one = expert_hessian_bytes(config, layer, e);
    experts += one;
    largest = std::max(largest, one);
  }
  return std::min(experts, std::max(moment_bytes, largest)) +
         other_hessian_bytes(config, layer) +
         4 * config.hidden_size * config.hidden_size;
}

}  // namespace

std::int64_t most_moment_bytes(
    const model::ModelReader& reader, const QuantOptions& options) {
  std::int64_t most = 0;
  for (std::int64_t l = 0; l < reader.config().num_layers(); ++l) {
    most = std::max(
        most, moments_of_layer(reader.config(), l, options.moment_bytes));
  }
  return most;
}

sweep::StageMemory quant_memory(
    const model::ModelReader& reader,
    const QuantOptions& options,
    bool experts_apart) {
  const model::ModelConfig& config = reader.config();
  const std::int64_t threads = at::get_num_threads();
  const model::LoadedBytes loaded =
      model::loaded_bytes(config, reader.forms(), at::kFloat, experts_apart);
  sweep::StageMemory memory{.bytes = outer_bytes(reader, options)};
  std::int64_t largest_site = 0;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const Written layer =
        written(reader, options, model::layer_weights(config, l), true);
    const std::int64_t moments =
        moments_of_layer(config, l, options.moment_bytes);
    const std::int64_t copy = loaded.layers[l].unpacked;
    // One after another: sites are quantized, the layer is written, and the
    // tokens pass through a copy of it.
    memory.bytes = std::max(
        {memory.bytes,
         moments + layer.packed + threads * layer.working,
         writing_bytes(layer),
         layer.packed + copy});
    memory.device_bytes = std::max(memory.device_bytes, moments + copy);
    largest_site = std::max(largest_site, layer.working);
  }
  memory.device_bytes += largest_site;
  return memory;
}

std::int64_t quant_bytes(
    const model::ModelReader& reader, const QuantOptions& options) {
  const model::ModelConfig& config = reader.config();
  std::int64_t most = outer_bytes(reader, options);
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const Written layer =
        written(reader, options, model::layer_weights(config, l), false);
    most = std::max(
        {most,
         layer.packed + at::get_num_threads() * layer.working,
         writing_bytes(layer)});
  }
  return most;
}

}  // namespace fettle::quant
