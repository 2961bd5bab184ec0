// SPDX-License-Identifier: Apache-2.0
#include "tune/low_rank/low_rank_pairs.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/error.h"
#include "core/rng.h"
#include "model/weights/weight_view.h"
#include "tune/part/row_pieces.h"

namespace fettle::tune {

namespace {

// Apart from all streams that other draws of a run use.
std::uint64_t stream_of(const LowRankTarget& target, std::int64_t e) {
  constexpr std::uint64_t kTag = 0x10a;
  return kTag << 52 | static_cast<std::uint64_t>(target.layer) << 32 |
         static_cast<std::uint64_t>(target.role) << 24 |
         static_cast<std::uint64_t>(e);
}

void fill_uniform(at::Tensor into, double bound, Rng rng) {
  float* values = into.data_ptr<float>();
  for (std::int64_t i = 0; i < into.numel(); ++i) {
    values[i] = static_cast<float>((2.0 * rng.uniform() - 1.0) * bound);
  }
}

void for_each_matrix(
    const LowRankPairs& pairs, const std::function<void(std::int64_t)>& job) {
  const std::int64_t count = pairs.target.matrices();
  if (!pairs.left.is_cpu()) {
    for (std::int64_t e = 0; e < count; ++e) job(e);
    return;
  }
  at::parallel_for(0, count, 1, [&](std::int64_t begin, std::int64_t end) {
    const at::NoGradGuard no_grad;
    for (std::int64_t e = begin; e < end; ++e) job(e);
  });
}

// weight += (scale left) right, formed in fp32. `weight` [m, c] is written in
// place.
void add_product(
    at::Tensor weight,
    const at::Tensor& left,
    const at::Tensor& right,
    float scale) {
  const at::Tensor scaled = left.mul(scale);
  if (weight.scalar_type() == at::kFloat) {
    weight.addmm_(scaled, right);
  } else {
    weight.copy_(weight.to(at::kFloat).addmm_(scaled, right));
  }
}

// Rows of the weight `id` within its matrix: gate and up are added one by one,
// as they are stored, since a product's bits may depend on its shape.
struct Span {
  std::int64_t first, count;
};

Span gate_or_up(const LowRankPairs& pairs, std::int64_t e, bool up) {
  const std::int64_t width = pairs.target.rows(e) / 2;
  return {up ? width : 0, width};
}

// Neighbours of as many rows; none that has no rows.
std::vector<RowPiece> matrices_together(const LowRankTarget& target) {
  std::vector<RowPiece> runs;
  for (std::int64_t e = 0; e < target.matrices(); ++e) {
    const std::int64_t rows = target.rows(e);
    if (rows == 0) continue;
    if (!runs.empty() && runs.back().first + runs.back().count == e &&
        target.rows(runs.back().first) == rows) {
      ++runs.back().count;
    } else {
      runs.push_back({e, 1});
    }
  }
  return runs;
}

// fp32 values as two of `type` that add up to them, but for a millionth.
std::pair<at::Tensor, at::Tensor> halves(
    const at::Tensor& x, at::ScalarType type) {
  const at::Tensor high = x.to(type);
  return {high, (x - high.to(at::kFloat)).to(type)};
}

// weights [count, m, c] += scaled [count, m, r] rights [count, r, c], summed in
// fp32 and rounded once. Narrow types are multiplied in halves, so that nothing
// of the weights' size is made in fp32.
void add_products(
    const at::Tensor& weights,
    const at::Tensor& scaled,
    const at::Tensor& rights) {
  const at::ScalarType type = weights.scalar_type();
  if (type == at::kFloat) {
    weights.baddbmm_(scaled, rights);
    return;
  }
  const auto [left, left_rest] = halves(scaled, type);
  const auto [right, right_rest] = halves(rights, type);
  weights.baddbmm_(
      at::cat({left, left_rest, left}, 2),
      at::cat({right, right, right_rest}, 1));
}

// To all matrices of a target on a card.
void add_all_together(
    const LowRankPairs& pairs, float scale, const at::Tensor& weights) {
  const LowRankTarget& target = pairs.target;
  for (const auto& [first, count] : matrices_together(target)) {
    const std::int64_t rows = target.rows(first);
    const at::Tensor some =
        weights.narrow(0, target.offsets[first], count * rows)
            .view({count, rows, target.columns});
    add_products(
        some,
        pairs.lefts_of(first, count).mul(scale),
        pairs.rights_of(first, count));
  }
}

}  // namespace

LowRankPairs LowRankPairs::start(
    LowRankTarget target, std::int64_t rank, std::uint64_t seed) {
  LowRankPairs pairs{
      std::move(target),
      at::zeros({0, rank}, at::kFloat),
      at::zeros({0}, at::kFloat)};
  const LowRankTarget& of = pairs.target;
  pairs.left = at::zeros({of.rows(), rank}, at::kFloat);
  pairs.right = at::zeros({of.matrices() * rank, of.columns}, at::kFloat);
  for_each_matrix(pairs, [&](std::int64_t e) {
    if (of.rows(e) == 0) return;
    const std::int64_t in = of.upright() ? of.columns : of.rows(e);
    fill_uniform(
        of.upright() ? pairs.right_of(e) : pairs.left_of(e),
        1.0 / std::sqrt(static_cast<double>(in)),
        Rng(seed, stream_of(of, e)));
  });
  return pairs;
}

std::int64_t LowRankPairs::weights() const {
  std::int64_t matrices = 0;
  for (std::int64_t e = 0; e < target.matrices(); ++e) {
    if (target.rows(e) > 0) ++matrices;
  }
  return left.numel() + matrices * rank() * target.columns;
}

at::Tensor LowRankPairs::left_of(std::int64_t e) const {
  return left.narrow(0, target.offsets[e], target.rows(e));
}

at::Tensor LowRankPairs::right_of(std::int64_t e) const {
  return right.narrow(0, e * rank(), rank());
}

at::Tensor LowRankPairs::lefts_of(
    std::int64_t first, std::int64_t count) const {
  const std::int64_t rows = target.rows(first);
  return left.narrow(0, target.offsets[first], count * rows)
      .view({count, rows, rank()});
}

at::Tensor LowRankPairs::rights_of(
    std::int64_t first, std::int64_t count) const {
  return right.narrow(0, first * rank(), count * rank())
      .view({count, rank(), target.columns});
}

bool LowRankPairs::changed(std::int64_t e) const {
  const at::Tensor b = target.upright() ? left_of(e) : right_of(e);
  return target.rows(e) > 0 && b.count_nonzero().item<std::int64_t>() > 0;
}

void add_pairs(
    const LowRankPairs& pairs, float scale, model::LayerWeights& into) {
  const at::NoGradGuard no_grad;
  const LowRankTarget& target = pairs.target;
  const at::Tensor weights = own_target(target, into);
  if (!weights.is_cpu()) {
    add_all_together(pairs, scale, weights);
    return;
  }
  for_each_matrix(pairs, [&](std::int64_t e) {
    if (target.rows(e) == 0) return;
    const at::Tensor weight =
        weights.narrow(0, target.offsets[e], target.rows(e));
    if (target.role != model::Role::kExpertGate) {
      add_product(weight, pairs.left_of(e), pairs.right_of(e), scale);
      return;
    }
    for (const bool up : {false, true}) {
      const auto [first, count] = gate_or_up(pairs, e, up);
      add_product(
          weight.narrow(0, first, count),
          pairs.left_of(e).narrow(0, first, count),
          pairs.right_of(e),
          scale);
    }
  });
}

at::Tensor with_pair(
    const LowRankPairs& pairs,
    float scale,
    const model::WeightId& id,
    const at::Tensor& base) {
  const at::NoGradGuard no_grad;
  FETTLE_ASSERT(pairs.target.covers(id));
  const std::int64_t e = std::max<std::int64_t>(id.expert, 0);
  at::Tensor left = pairs.left_of(e);
  if (pairs.target.role == model::Role::kExpertGate) {
    const auto [first, count] =
        gate_or_up(pairs, e, id.role == model::Role::kExpertUp);
    left = left.narrow(0, first, count);
  }
  const bool upright = pairs.target.upright();
  at::Tensor sum =
      (upright ? base : base.t()).clone(at::MemoryFormat::Contiguous);
  add_product(sum, left, pairs.right_of(e), scale);
  return upright ? sum : sum.t().contiguous();
}

void add_pair_gradient(
    const LowRankPairs& pairs,
    const at::Tensor& of_weight,
    float scale,
    PairGradient into) {
  const at::NoGradGuard no_grad;
  into.left.addmm_(of_weight, pairs.right.t(), 1.0, scale);
  into.right.addmm_(pairs.left.t(), of_weight, 1.0, scale);
}

void add_pair_gradient(
    const LowRankPairs& pairs,
    std::int64_t e,
    const GradientFactors& of_weight,
    float scale,
    PairGradient into) {
  const at::NoGradGuard no_grad;
  const auto& [u, v] = of_weight;
  const at::Tensor left = pairs.left_of(e).to(u.scalar_type());
  const at::Tensor right = pairs.right_of(e).to(u.scalar_type());
  const auto add =
      [&](at::Tensor& sum, const at::Tensor& a, const at::Tensor& b) {
        if (a.scalar_type() == at::kFloat) {
          sum.addmm_(a, b, 1.0, scale);
        } else {
          sum.add_(at::mm(a, b), scale);
        }
      };
  add(into.left, u.t(), at::mm(v, right.t()));
  add(into.right, at::mm(u, left).t(), v);
}

void add_run_gradient(
    const LowRankPairs& pairs,
    const model::RunGradView& view,
    const GradientFactors& of_weight,
    float scale,
    PairGradient into) {
  const at::NoGradGuard no_grad;
  const auto& [u, v] = of_weight;
  const std::int64_t first = view.run.first;
  const std::int64_t count = view.run.experts();
  const auto product = [&](const at::Tensor& rows, const at::Tensor& of) {
    return model::run_products(
        view.run, view.dispatch, rows, of.to(rows.scalar_type()));
  };
  const auto outer = [&](const at::Tensor& a, const at::Tensor& b) {
    return model::run_outer_products(view.run, view.dispatch, a, b);
  };
  const LowRankPairs sums{pairs.target, into.left, into.right};
  const at::Tensor vr =
      product(v, pairs.rights_of(first, count).transpose(1, 2));
  sums.lefts_of(first, count).add_(outer(u, vr), scale);
  const at::Tensor ul = product(u, pairs.lefts_of(first, count));
  sums.rights_of(first, count).add_(outer(ul, v), scale);
}

}  // namespace fettle::tune
