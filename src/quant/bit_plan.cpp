// SPDX-License-Identifier: Apache-2.0
#include "quant/bit_plan.h"

#include <map>
#include <utility>

#include "artifact/model_writer.h"
#include "core/error.h"
#include "quant/nats.h"

namespace fettle::quant {
namespace {

using model::Role;
using model::WeightId;

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

// What a unit of a weight's error costs. An error counts by the layer's own
// outputs, to which it is added: the deeper a layer, the larger these are. An
// expert that no token chose has an error relative to its weights alone; it
// counts as if it had seen one mean token of its role.
class Prices {
 public:
  explicit Prices(const LayerErrors& layer) : layer_(layer) {
    for (const MeasuredWeight& weight : layer.weights) {
      if (weight.tokens == 0) continue;
      energy_[weight.id.role] += weight.energy;
      tokens_[weight.id.role] += static_cast<double>(weight.tokens);
    }
  }

  double of(const MeasuredWeight& weight) const {
    const auto seen = tokens_.find(weight.id.role);
    double price = 1;
    if (weight.tokens == 0 && seen != tokens_.end()) {
      const double mean = energy_.at(weight.id.role) / seen->second;
      price = share(mean, weight.energy);
    }
    return layer_.outputs > 0 ? price / layer_.outputs : price;
  }

 private:
  const LayerErrors& layer_;
  std::map<Role, double> energy_, tokens_;
};

}  // namespace

ChoiceSize choice_size(
    const model::ModelReader& reader, const QuantErrors& errors) {
  const model::ModelConfig& config = reader.config();
  ChoiceSize size;
  size.fixed_bytes = reader.carried_bytes();
  for (const WeightId& id : model::model_weights(config)) {
    size.fixed_bytes += artifact::weight_bytes(config, id, reader.form(id));
  }
  for (const LayerErrors& layer : errors.layers) {
    for (const MeasuredWeight& weight : layer.weights) {
      const WeightId& id = weight.id;
      size.fixed_bytes -= artifact::weight_bytes(config, id, reader.form(id));
      if (weight.options.size() > 1) {
        size.weights += model::weight_numel(config, id);
      } else {
        size.fixed_bytes += weight.options.front().bytes;
      }
    }
  }
  return size;
}

BitPlan plan_bits(
    const model::ModelReader& reader,
    const QuantErrors& errors,
    std::int64_t budget) {
  const model::ModelConfig& config = reader.config();
  FETTLE_ASSERT(errors.layers.size() == config.layers.size() + 1);
  const ChoiceSize size = choice_size(reader, errors);
  const bool priced = errors.priced();
  std::vector<AllocationItem> items;
  std::vector<const MeasuredWeight*> weights;
  const double dearest = dearest_mean(errors.layers);
  for (const LayerErrors& layer : errors.layers) {
    const Prices prices(layer);
    const LayerNats nats(layer, dearest);
    for (const MeasuredWeight& weight : layer.weights) {
      if (weight.options.size() < 2) continue;
      weights.push_back(&weight);
      AllocationItem& item = items.emplace_back();
      for (const MeasuredOption& option : weight.options) {
        item.options.push_back(
            {option.bytes,
             priced ? nats.of(weight, option)
                    : option.error * prices.of(weight)});
      }
    }
  }
  BitPlan result;
  result.allocation = allocate(items, {budget, size.fixed_bytes});
  result.bytes = size.fixed_bytes + result.allocation.bytes;
  std::map<std::pair<std::int64_t, std::pair<Role, std::int64_t>>, Scheme>
      chosen;
  const auto key = [](const WeightId& id) {
    return std::pair(id.layer, std::pair(id.role, id.expert));
  };
  for (const LayerErrors& layer : errors.layers) {
    for (const MeasuredWeight& w : layer.weights) {
      chosen[key(w.id)] = w.options.front().scheme;
    }
  }
  for (std::size_t i = 0; i < weights.size(); ++i) {
    chosen[key(weights[i]->id)] =
        weights[i]->options[result.allocation.choices[i]].scheme;
  }
  result.plan = artifact::QuantPlan::of(config, [&](const WeightId& id) {
    const auto found = chosen.find(key(id));
    return found == chosen.end() ? std::string("keep")
                                 : scheme_name(found->second);
  });
  result.plan.model_fingerprint = reader.fingerprint();
  return result;
}

}  // namespace fettle::quant
