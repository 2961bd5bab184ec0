// SPDX-License-Identifier: Apache-2.0
// Every weight of a family: its role, Hugging Face name and how it is stored.
// Loader, exporter, trimmer and quantizer all work from this one table, and a
// family adds rows, never code.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/family/model_config.h"
#include "model/family/weight_roles.h"

namespace fettle::model {

// How all of a layer's experts lie in one tensor.
enum class StackOrder {
  kGateFirst,    // gate and up in [E, 2I, H], gate rows first; down [E, H, I]
  kInterleaved,  // gate and up in [E, H, 2I], a column of gate, then one of up;
                 // their biases [E, 2I] likewise; down [E, I, H]
};

// One row of a family's table. `name` holds {l} for the layer and {e} for the
// expert. `fused` names the form in which several weights are one tensor, where
// the family has one: the experts of a layer, or gate and up [2I, H] of another
// MLP. Loaders of a family with `stacked_only` know no other form, and `name`
// is Fettle's own. `alias` and `fused_alias` are second names under which the
// tensors are also read. A vector with `as_row` is stored as [1, n], a matrix
// with `by_channel` as [n, 1, m].
struct WeightRow {
  Role role;
  std::string_view name;
  std::string_view fused = {};
  std::string_view alias = {};
  bool as_row = false;
  bool by_channel = false;
  std::string_view fused_alias = {};
  bool own = false;  // Fettle's: other loaders of the family know no such
  StackOrder order = StackOrder::kGateFirst;
  bool stacked_only = false;
};

// What Fettle alone adds to a family.
constexpr WeightRow own_row(Role role, std::string_view name) {
  return {.role = role, .name = name, .own = true};
}

struct Family {
  std::string_view model_type;
  // Fills everything but the layers' "fettle" overrides.
  ModelConfig (*parse)(const JsonObject& config);
  // Writes uniform expert count, width and top-k back under the family's keys,
  // in whichever spelling is there. What other keys say must stay true.
  void (*write_uniform)(
      Json& config,
      std::int64_t experts,
      std::int64_t width,
      std::int64_t top_k);
  std::span<const WeightRow> weights;
  // The key that says how wide the shared expert is, in experts where it is
  // SharedExpert::kPlain and not `shared_in_neurons`.
  std::string_view shared_key = {};
  bool shared_in_neurons = false;
  // How names of its releases begin where the table says "model.", which
  // loaders know too.
  std::string_view body = "model.";
};

// All families. Throws UserError naming the known ones on an unknown type.
const Family& find_family(std::string_view model_type);
std::span<const Family> families();

// One tensor that a model of `config` has. Layer and expert are -1 where the
// role has none.
struct WeightId {
  Role role;
  std::int64_t layer = -1;
  std::int64_t expert = -1;
  bool operator==(const WeightId&) const = default;
};

// Every tensor of the model in canonical order: embeddings, layers ascending
// (within a layer in table order, experts ascending), final norm, head.
std::vector<WeightId> model_weights(const ModelConfig& config);
std::vector<WeightId> layer_weights(
    const ModelConfig& config, std::int64_t layer);

std::vector<std::int64_t> weight_shape(
    const ModelConfig& config, const WeightId& id);
// As it lies in a file.
std::vector<std::int64_t> stored_shape(
    const ModelConfig& config, const WeightId& id);
// Of the family's table; the role must be in it.
const WeightRow& weight_row(const ModelConfig& config, Role role);
// Whether weights of the role are there that only Fettle reads.
bool adds_own(const ModelConfig& config, const LayerConfig& layer, Role role);

std::int64_t weight_numel(const ModelConfig& config, const WeightId& id);
// The tensor's name in files.
std::string weight_name(const ModelConfig& config, const WeightId& id);
// The same as the family's table spells it, wherever the model lies.
std::string row_name(const ModelConfig& config, const WeightId& id);

// `pattern` with {l} and {e} replaced by the layer and the expert of `id`.
std::string expand_name(std::string_view pattern, const WeightId& id);

}  // namespace fettle::model
