// SPDX-License-Identifier: Apache-2.0
#include "quant/layer_passes.h"

#include <algorithm>

#include "model/weights/side_by_side.h"
#include "quant/hessians.h"
#include "ranks/group.h"

namespace fettle::quant {
namespace {

using Places = std::vector<std::int64_t>;

// Sites don't share what they write; one that fails stops the others.
void quantize_some(
    const LayerQuantizer& quantizer,
    const std::vector<Site>& sites,
    const Places& places,
    const HessianTap* tap,
    const SiteDone& done) {
  model::run_side_by_side(
      places, quantizer.device().is_cpu(), [&](std::int64_t place) {
        const Site& site = sites[place];
        const Hessian* hessian =
            tap != nullptr ? &tap->of(site.role, site.expert) : nullptr;
        done(
            static_cast<std::size_t>(place),
            quantizer.quantize(site.weights, hessian));
      });
}

// The sites of experts [first, last) that this rank quantizes: those of one
// expert together, others in turn.
Places places_of(
    const LayerPasses& passes,
    const std::vector<Site>& sites,
    std::int64_t first,
    std::int64_t last) {
  const ranks::Group* const group = passes.team.group;
  const std::int64_t ranks = group != nullptr ? group->size() : 1;
  const std::int64_t rank = group != nullptr ? group->rank() : 0;
  Places places;
  for (std::size_t s = 0; s < sites.size(); ++s) {
    if (sites[s].expert < first || sites[s].expert >= last) continue;
    const auto place = static_cast<std::int64_t>(s);
    const std::int64_t turn = sites[s].expert < 0 ? place : sites[s].expert;
    if (turn % ranks == rank) places.push_back(place);
  }
  return places;
}

// The experts [first, last) whose moments are held at once.
std::int64_t last_of_pass(
    const LayerPasses& passes, std::int64_t layer, std::int64_t first) {
  const model::ModelConfig& config = passes.reader.config();
  const std::int64_t experts = config.layers[layer].num_experts();
  std::int64_t held = 0;
  std::int64_t last = first;
  while (last < experts) {
    held += expert_hessian_bytes(config, layer, last);
    if (last > first && held > passes.moment_bytes) break;
    ++last;
  }
  return last;
}

// So that an expert's sample has about as many tokens, few in each micro-batch.
constexpr std::int64_t kSampleTokens = 256;

std::int64_t sample_rows(const LayerPasses& passes) {
  if (passes.prices == nullptr) return 0;
  const std::int64_t batches =
      std::max<std::int64_t>(passes.stream->micro_batches(), 1);
  return (kSampleTokens + batches - 1) / batches;
}

}  // namespace

std::vector<Site> group_by_site(
    const model::ModelConfig& config,
    const std::vector<WeightScheme>& weights) {
  std::vector<Site> sites;
  for (const WeightScheme& weight : weights) {
    const auto& [id, scheme] = weight;
    if (scheme.keep || model::weight_numel(config, id) == 0) continue;
    const model::Role role = site_of(id.role);
    const auto same = std::ranges::find_if(sites, [&](const Site& site) {
      return site.role == role && site.expert == id.expert;
    });
    if (same != sites.end()) {
      same->weights.push_back(weight);
    } else {
      sites.push_back({role, id.expert, {weight}});
    }
  }
  return sites;
}

void quantize_sites(
    const LayerPasses& passes,
    std::int64_t layer,
    const std::vector<Site>& sites,
    const SiteDone& done) {
  if (passes.stream == nullptr) {
    const Hessian none;
    LayerQuantizer quantizer(passes.reader, passes.gptq, none);
    quantizer.set_prices(passes.prices);
    const Places all = places_of(passes, sites, -1, INT64_MAX);
    quantize_some(quantizer, sites, all, nullptr, done);
    return;
  }
  const model::ModelConfig& config = passes.reader.config();
  const auto weights = passes.model->acquire(
      layer, layer + 1 < config.num_layers() ? layer + 1 : -1);
  Hessian of_layer;
  std::int64_t first = 0;
  do {
    const std::int64_t last = last_of_pass(passes, layer, first);
    HessianTap tap(
        passes.gptq.hessians,
        *weights,
        {first, last, first == 0, sample_rows(passes)});
    passes.stream->look(
        {config, layer, *weights, &tap, [&](const sweep::SumVisitor& visit) {
           tap.for_each_sum(config, layer, visit);
         }});
    tap.end_sums();
    if (first == 0) of_layer = tap.of_layer();
    LayerQuantizer quantizer(
        passes.reader, passes.gptq, of_layer, passes.model->options().device);
    quantizer.set_prices(passes.prices);
    if (first == 0) {
      const Places others = places_of(passes, sites, -1, 0);
      quantize_some(quantizer, sites, others, &tap, done);
    }
    const Places own = places_of(passes, sites, first, last);
    quantize_some(quantizer, sites, own, &tap, done);
    first = last;
  } while (first < config.layers[layer].num_experts());
}

}  // namespace fettle::quant
