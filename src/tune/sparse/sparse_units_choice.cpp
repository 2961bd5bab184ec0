// SPDX-License-Identifier: Apache-2.0
// How the active units are chosen, and chosen anew.
#include <fmt/format.h>

#include "core/error.h"
#include "tune/sparse/sparse_units.h"

namespace fettle::tune {

namespace {

constexpr at::ScalarType kWorth = at::kDouble;

std::vector<std::int64_t> to_vector(const at::Tensor& index) {
  const auto values = entries(index);
  return {values.begin(), values.end()};
}

std::vector<CompactIndex> compact(const UnitSets& sets) {
  std::vector<CompactIndex> result;
  for (const auto& set : sets) {
    result.emplace_back(at::tensor(set, at::kLong));
  }
  return result;
}

}  // namespace

bool SparseUnits::is_due(std::int64_t step) const {
  return step == 0 ||
         (options_.reselect_every > 0 && step % options_.reselect_every == 0);
}

UnitScores SparseUnits::worth() const {
  UnitScores result(layers_.size());
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const auto id = static_cast<std::int64_t>(l);
    const at::Tensor sums = options_.owners.owns(id)
                                ? worth_of(id)
                                : at::empty({layers_[l].active.size()}, kWorth);
    options_.owners.share(id, {sums});
    const double* values = sums.const_data_ptr<double>();
    result[l].assign(values, values + sums.numel());
  }
  return result;
}

at::Tensor SparseUnits::worth_of(std::int64_t l) const {
  const Layer& layer = layers_[l];
  const UnitRows base = read(l, layer.active.index.decode());
  at::Tensor change = layer.active.values - base.values.to(device_);
  if (options_.drop_by == DropBy::kMoment) {
    change.abs_()
        .mul_(layer.adam.first.abs())
        .div_(layer.adam.second.sqrt().add_(options_.adamw.epsilon));
  } else {
    change.square_();
  }
  // The square root would not change the order.
  return change.sum(at::IntArrayRef({0, 2}), false, kWorth).cpu();
}

std::vector<CompactIndex> SparseUnits::choose(const PrepareInput& input) const {
  return compact(choose_units(score(input), options_.frac, options_.scope));
}

std::vector<CompactIndex> SparseUnits::exchange(
    const PrepareInput& input) const {
  UnitSets before;
  for (const Layer& layer : layers_) {
    before.push_back(to_vector(layer.active.index.decode()));
  }
  return compact(exchange_units(
      {before,
       worth(),
       score(input),
       cosine_fall(options_.drop_fraction, input.step, options_.schedule.steps),
       options_.scope}));
}

void SparseUnits::prepare(const PrepareInput& input) {
  if (!is_due(input.step)) return;
  const auto chosen = input.step == 0 ? choose(input) : exchange(input);
  std::int64_t total = 0;
  std::int64_t all = 0;
  std::int64_t grown = 0;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const at::Tensor index = chosen[l].decode();
    total += chosen[l].size();
    all += layers_[l].units;
    grown += difference(index, layers_[l].active.index.decode()).size(0);
    set_active(static_cast<std::int64_t>(l), index);
  }
  input.reporter.note(fmt::format(
      "step {}: {} of {} {} are trained, {} of them new",
      input.step,
      total,
      all,
      name(),
      grown));
}

// Rows of the units `index`: learned values where known, else the model's own.
UnitRows SparseUnits::gather(
    std::int64_t layer, const UnitRows& known, const at::Tensor& index) const {
  if (known.size() == 0) {
    UnitRows rows = read(layer, index);
    rows.values = rows.values.to(device_);
    return rows;
  }
  UnitRows next{index, at::empty({shape_.planes, index.size(0), shape_.width})};
  next.values = next.values.to(device_);
  const auto fill = [&](const UnitRows& from) {
    const CommonPositions common = common_positions(from.index, index);
    next.values.index_copy_(
        1,
        common.in_b.to(device_),
        from.values.to(device_).index_select(1, common.in_a.to(device_)));
  };
  fill(known);
  fill(read(layer, difference(index, known.index)));
  return next;
}

void SparseUnits::set_active(std::int64_t layer, const at::Tensor& index) {
  Layer& own = layers_[layer];
  FETTLE_ASSERT(ages_by_unit() || own.active.size() == 0);
  const UnitRows active = own.active.decode();
  const UnitRows known = merge_rows(active, own.frozen.decode());
  UnitRows next = gather(layer, known, index);

  AdamWState adam = options_.owners.moments(layer, next.values);
  adam.age = adam.age.to(at::kInt);
  if (active.size() > 0) {
    const CommonPositions kept = common_positions(active.index, index);
    const at::Tensor from = kept.in_a.to(device_);
    const at::Tensor to = kept.in_b.to(device_);
    if (options_.owners.owns(layer)) {
      adam.first.index_copy_(1, to, own.adam.first.index_select(1, from));
      adam.second.index_copy_(1, to, own.adam.second.index_select(1, from));
    }
    adam.age.index_copy_(0, kept.in_b, own.adam.age.index_select(0, kept.in_a));
  }

  UnitRows frozen;
  frozen.index = difference(known.index, index);
  const CommonPositions left = common_positions(known.index, frozen.index);
  // Where none is known yet, there are no values on the device either.
  frozen.values =
      known.values.index_select(1, left.in_a.to(known.values.device()));
  own.adam = std::move(adam);
  set_rows(layer, std::move(next), std::move(frozen));
  if (!ages_by_unit()) own.adam.age = at::zeros({num_ages(layer)}, at::kInt);
}

}  // namespace fettle::tune
