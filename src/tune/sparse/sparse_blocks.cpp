// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse/sparse_blocks.h"

#include "model/layers/layer_tap.h"
#include "model/weights/weight_view.h"
#include "tune/sparse/block_delta.h"

namespace fettle::tune {

namespace {

std::vector<BlockLayout> layouts_of(
    const model::ModelConfig& config, const SparseBlocksOptions& options) {
  std::vector<BlockLayout> layouts;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    layouts.emplace_back(config, l, options.roles, options.block);
  }
  return layouts;
}

std::vector<std::int64_t> counts_of(const std::vector<BlockLayout>& layouts) {
  std::vector<std::int64_t> counts;
  for (const BlockLayout& layout : layouts) counts.push_back(layout.count());
  return counts;
}

}  // namespace

SparseBlocks::SparseBlocks(
    const model::ModelReader& reader,
    at::Device device,
    const SparseBlocksOptions& options)
    : SparseUnits(
          reader,
          device,
          options.sparse,
          {1, options.block.size()},
          counts_of(layouts_of(reader.config(), options))),
      options_(options),
      layouts_(layouts_of(reader.config(), options)),
      places_(layouts_.size()) {}

void SparseBlocks::on_active_changed(
    std::int64_t layer, const at::Tensor& index) {
  Places& places = places_[layer];
  places.ranges = layouts_[layer].ranges(index);
  places.parts.clear();
  std::vector<model::WeightId> beside;
  for (std::size_t m = 0; m + 1 < places.ranges.size(); ++m) {
    const model::WeightId& id = layouts_[layer].matrices()[m].id;
    if (places.ranges[m] < places.ranges[m + 1] && !model::is_tapped(id.role)) {
      beside.push_back(id);
    }
  }
  places.beside = WeightGradients(std::move(beside));
}

std::int64_t SparseBlocks::trained_weights(std::int64_t layer) const {
  const at::Tensor index = active(layer);
  std::int64_t total = index.size(0) * options_.block.size();
  layouts_[layer].for_each_part(
      index, [&](const BlockMatrix& matrix, const BlockLayout::Part& part) {
        // What reaches over an edge is no weight.
        total -= outside(matrix.grid, part.ids);
      });
  return total;
}

std::vector<SparseUnits::UnitRun> SparseBlocks::unit_runs(
    std::int64_t layer) const {
  std::vector<UnitRun> runs;
  const auto& ranges = places_[layer].ranges;
  for (std::size_t m = 0; m + 1 < ranges.size(); ++m) {
    const model::WeightId& id = layouts_[layer].matrices()[m].id;
    runs.push_back({id.expert, ranges[m], ranges[m + 1] - ranges[m]});
  }
  return runs;
}

ProbeRequest SparseBlocks::request() const {
  return {
      .sequences = options().score_sequences,
      .at_once = true,
      .by_sequence = options_.score == BlockScore::kSquares};
}

UnitScores SparseBlocks::score(const PrepareInput& input) const {
  BlockScorer scorer(layouts_, options_.score);
  input.gradient_probe(scorer, request());
  return scorer.scores();
}

std::vector<CompactIndex> SparseBlocks::choose(
    const PrepareInput& input) const {
  if (options().scope == Scope::kGlobal) return SparseUnits::choose(input);
  BlockScorer scorer(layouts_, options_.score, options().frac);
  input.gradient_probe(scorer, request());
  return scorer.best();
}

UnitRows SparseBlocks::read(std::int64_t layer, const at::Tensor& index) const {
  UnitRows rows{
      index, at::empty({1, index.size(0), options_.block.size()}, at::kFloat)};
  layouts_[layer].for_each_part(
      index, [&](const BlockMatrix& matrix, const BlockLayout::Part& part) {
        rows.values[0]
            .narrow(0, part.first, part.ids.size(0))
            .copy_(gather_blocks(
                matrix.grid,
                reader().read(matrix.id).to(at::kFloat),
                part.ids));
      });
  return rows;
}

void SparseBlocks::write(
    std::int64_t layer,
    const UnitRows& rows,
    model::LayerWeights& weights) const {
  layouts_[layer].for_each_part(
      rows.index,
      [&](const BlockMatrix& matrix, const BlockLayout::Part& part) {
        scatter_blocks_(
            matrix.grid,
            model::weight_view(weights, matrix.id),
            part.ids.to(device()),
            rows.values[0].narrow(0, part.first, part.ids.size(0)));
      });
}

void SparseBlocks::begin_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (!trains(layer)) return;
  SparseUnits::begin_layer(pass, layer, weights);
  Places& places = places_[layer];
  places.beside.begin_layer(pass, weights);
  if (pass != sweep::Pass::kBackward) return;
  places.parts = layouts_[layer].split(active(layer));
  for (BlockLayout::Part& part : places.parts) {
    part.ids = part.ids.to(device());
  }
}

void SparseBlocks::add_product(
    const model::WeightId& id,
    const at::Tensor& left,
    const at::Tensor& right) {
  const BlockLayout& layout = layouts_[id.layer];
  const std::int64_t place = layout.find(id);
  if (place < 0) return;
  const BlockLayout::Part& part = places_[id.layer].parts[place];
  add_product_blocks_(
      layout.matrices()[place].grid,
      left,
      right,
      part.ids,
      gradient_of(id.layer)[0].narrow(0, part.first, part.ids.size(0)));
}

void SparseBlocks::on_expert_gradient(
    std::int64_t layer, const model::ExpertGradView& view) {
  if (!trains(layer)) return;
  const at::NoGradGuard no_grad;
  const std::int64_t e = view.expert;
  add_product({model::Role::kExpertGate, layer, e}, view.d_gate(), view.x);
  add_product({model::Role::kExpertUp, layer, e}, view.d_up(), view.x);
  add_product({model::Role::kExpertDown, layer, e}, view.dy, view.h);
}

void SparseBlocks::on_projection_gradient(
    std::int64_t layer,
    model::Role role,
    const at::Tensor& x,
    const at::Tensor& dy) {
  if (!trains(layer)) return;
  const at::NoGradGuard no_grad;
  add_product({role, layer}, dy, x);
}

void SparseBlocks::for_each_sum(
    sweep::Pass pass, std::int64_t layer, const sweep::SumVisitor& visit) {
  if (!trains(layer)) return;
  if (pass == sweep::Pass::kBackward) {
    places_[layer].beside.collect_shard();
    fold(layer);
  }
  SparseUnits::for_each_sum(pass, layer, visit);
}

void SparseBlocks::end_layer(
    sweep::Pass pass, std::int64_t layer, model::LayerWeights& weights) {
  if (pass != sweep::Pass::kBackward || !trains(layer)) return;
  places_[layer].beside.end_layer(pass);
  fold(layer);
  places_[layer].parts.clear();
  SparseUnits::end_layer(pass, layer, weights);
}

void SparseBlocks::fold(std::int64_t layer) {
  const at::NoGradGuard no_grad;
  Places& places = places_[layer];
  for (std::size_t i = 0; i < places.beside.ids().size(); ++i) {
    const model::WeightId& id = places.beside.ids()[i];
    if (!places.beside[i].defined()) continue;
    const std::int64_t place = layouts_[layer].find(id);
    const BlockLayout::Part& part = places.parts[place];
    const at::Tensor gradient =
        model::is_down_role(id.role) ? places.beside[i].t() : places.beside[i];
    gradient_of(layer)[0]
        .narrow(0, part.first, part.ids.size(0))
        .add_(gather_blocks(
            layouts_[layer].matrices()[place].grid, gradient, part.ids));
  }
  places.beside.clear();
}

void SparseBlocks::save_adapter(artifact::TensorMap& into) const {
  for (std::int64_t l = 0; l < num_layers(); ++l) {
    const UnitRows rows =
        merge_rows(layer(l).active.decode(), layer(l).frozen.decode());
    layouts_[l].for_each_part(
        rows.index,
        [&](const BlockMatrix& matrix, const BlockLayout::Part& part) {
          BlockDelta::save_matrix(
              name(),
              matrix,
              part.ids,
              rows.values[0].narrow(0, part.first, part.ids.size(0)),
              into);
        });
  }
}

}  // namespace fettle::tune
