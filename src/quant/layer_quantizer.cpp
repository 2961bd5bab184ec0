// SPDX-License-Identifier: Apache-2.0
#include "quant/layer_quantizer.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "kernels/damped_cholesky.h"
#include "kernels/gptq.h"
#include "kernels/refine.h"
#include "quant/input_costs.h"
#include "quant/trit_packing.h"

namespace fettle::quant {
namespace {

// Without moments rows know nothing of each other.
constexpr std::int64_t kRowsAtOnce = 4096;

std::string subject_of(
    const model::ModelReader& reader, const model::WeightId& id) {
  return model::weight_name(reader.config(), id);
}

// U, upper triangular, with H⁻¹ = UᵀU, of a damped H whose rows and columns are
// given in reverse: its lower factor becomes an upper one A with H = A Aᵀ, and
// U is its inverse. One factorization, no inverse of H. Where rounding has left
// it no factor, its damping `shift` grows.
at::Tensor inverse_factor(at::Tensor reversed, double shift) {
  const std::int64_t n = reversed.size(0);
  auto [lower, failed] = at::linalg_cholesky_ex(reversed);
  if (failed.item<int>() != 0) {
    reversed.diagonal().sub_(shift);
    lower = kernels::damped_cholesky(reversed.to(at::kCPU), shift)
                .to(reversed.device());
  }
  const at::Tensor inverse = at::linalg_solve_triangular(
      lower, at::eye(n, lower.options()), /*upper=*/false);
  return inverse.flip({0, 1}).to(at::kFloat).contiguous();
}

// The diagonal of A M Aᵀ [rows], or the squares of A's rows where there are no
// moments.
at::Tensor squares_under(const at::Tensor& a, const at::Tensor& moments) {
  if (!moments.defined()) return a.square().sum(1, false, at::kDouble);
  return (at::mm(a, moments) * a).sum(1, false, at::kDouble);
}

// Rounding may bring a sum of products below zero.
double total(const at::Tensor& squares) {
  return std::max(squares.sum().item<double>(), 0.0);
}

kernels::Quantized on_cpu(kernels::Quantized levels) {
  levels.codes = levels.codes.to(at::kCPU);
  levels.scales = levels.scales.to(at::kCPU);
  if (levels.zeros.defined()) levels.zeros = levels.zeros.to(at::kCPU);
  return levels;
}

}  // namespace

// A weight whose rows are rounded some at a time.
struct LayerQuantizer::Rounded {
  std::int64_t rows = 0;
  QuantizedWeight weight = {};  // all but its matrix
  kernels::Quantized levels = {};

  void put(std::int64_t first, kernels::Quantized some) {
    if (some.codes.size(0) == rows) {
      levels = std::move(some);
      return;
    }
    const auto put_in = [&](at::Tensor& all, const at::Tensor& part) {
      if (!part.defined()) return;
      if (!all.defined()) all = at::empty({rows, part.size(1)}, part.options());
      all.narrow(0, first, part.size(0)).copy_(part);
    };
    put_in(levels.codes, some.codes);
    put_in(levels.scales, some.scales);
    put_in(levels.zeros, some.zeros);
  }
};

LayerQuantizer::LayerQuantizer(
    const model::ModelReader& reader,
    const GptqOptions& options,
    const Hessian& of_layer,
    at::Device device)
    : reader_(reader),
      options_(options),
      of_layer_(of_layer),
      device_(device) {}

// An expert with few tokens has moments of few directions: the less it has
// seen, the more those of the whole layer speak for it. What an expert's down
// projection takes in is its own, so there all directions are alike.
at::Tensor LayerQuantizer::moments_of(
    const model::WeightId& id,
    std::int64_t cols,
    const Hessian& hessian) const {
  const bool seen = hessian.sum.defined();
  const at::Tensor& own = hessian.sum;
  if (seen && (id.expert < 0 || hessian.tokens >= cols)) return own;
  if (options_.starved == Starved::kRtn) return own;
  const double energy =
      seen ? own.diagonal().sum(at::kDouble).item<double>() : 0.0;
  at::Tensor common;
  if (site_of(id.role) == model::Role::kExpertGate && of_layer_.sum.defined()) {
    common = of_layer_.sum;
  } else {
    common = at::eye(cols, at::TensorOptions(device_).dtype(at::kFloat));
  }
  const double trace = common.diagonal().sum(at::kDouble).item<double>();
  if (!(trace > 0)) return own;
  if (!seen || energy <= 0) return common;
  const double share =
      static_cast<double>(hessian.tokens) / static_cast<double>(cols);
  return own * share + common * ((1 - share) * energy / trace);
}

LayerQuantizer::Guide LayerQuantizer::guide(
    const model::WeightId& id,
    std::int64_t cols,
    const Hessian* hessian) const {
  Guide guide;
  guide.grid = options_.grid;
  if (hessian == nullptr || cols == 0) return guide;
  if (options_.method == Method::kGptq && options_.refine > 0) {
    guide.grid.symmetric = options_.grid.symmetric.value_or(true);
  }
  guide.moments = moments_of(id, cols, *hessian);
  if (!guide.moments.defined()) return guide;
  const at::Tensor diagonal = guide.moments.diagonal();
  if (!std::isfinite(diagonal.sum(at::kDouble).item<double>())) {
    throw NotFiniteError(
        "quant",
        subject_of(reader_, id),
        "expected finite inputs from the calibration data, found some that are "
        "not; check the model's weights, or compute in fp32");
  }
  // No column is worth nothing: a new text may use it.
  const double mean = diagonal.mean().item<double>();
  const double shift = mean > 0 ? options_.damping * mean : 1.0;
  guide.importance = (diagonal + shift).contiguous();
  if (options_.method != Method::kGptq) return guide;
  at::Tensor damped = guide.moments.clone();
  damped.diagonal().copy_(guide.importance);
  at::Tensor reversed;
  if (options_.act_order) {
    guide.order = diagonal.argsort(/*dim=*/0, /*descending=*/true).contiguous();
    const at::Tensor rising = guide.order.flip(0);
    reversed = damped.index_select(0, rising).index_select(1, rising);
  } else {
    reversed = damped.flip({0, 1});
  }
  if (options_.refine > 0) guide.damped = damped;
  damped.reset();
  guide.factor = inverse_factor(std::move(reversed), shift);
  return guide;
}

void LayerQuantizer::round(
    const at::Tensor& rows,
    std::int64_t first,
    const kernels::QuantGrid& grid,
    const Guide& guide,
    Rounded& into) const {
  QuantizedWeight& result = into.weight;
  const at::Tensor w = rows.to(device_).to(at::kFloat).contiguous();
  if (!at::isfinite(w).all().item<bool>()) {
    throw NotFiniteError(
        "quant",
        subject_of(reader_, result.id),
        "holds values that are NaN or infinite. Perhaps a damaged file?");
  }
  kernels::Quantized levels = kernels::quantize(
      {w.clone(), guide.importance, guide.factor, guide.order}, grid);
  if (guide.damped.defined()) {
    kernels::refine(levels, w, guide.damped, grid, options_.refine);
  }
  levels = on_cpu(std::move(levels));
  const at::Tensor values = at::empty(w.sizes(), at::kFloat);
  kernels::unpack_rows(kernels::pack(levels, grid), 0, values);
  const at::Tensor difference = values.to(device_) - w;
  const at::Tensor errors = squares_under(difference, guide.moments);
  result.error += total(errors);
  result.energy += total(squares_under(w, guide.moments));
  const at::Tensor prices = prices_ != nullptr
                                ? prices_->of(reader_.config(), result.id)
                                : at::Tensor();
  if (prices.defined()) {
    result.cost +=
        total(errors * prices.narrow(0, first, w.size(0)).to(device_));
  }
  into.put(first, std::move(levels));
}

QuantizedWeight LayerQuantizer::quantize_one(
    const WeightScheme& weight, const Guide& guide) const {
  const auto& [id, scheme] = weight;
  const std::vector<std::int64_t> shape =
      model::weight_shape(reader_.config(), id);
  const kernels::QuantGrid grid = grid_of(scheme, guide.grid, shape[1]);
  Rounded rounded{.rows = shape[0], .weight = {.id = id}};
  if (guide.moments.defined() || shape[0] == 0) {
    round(reader_.read(id), 0, grid, guide, rounded);
  } else {
    reader_.read_rows(
        id, kRowsAtOnce, [&](std::int64_t first, const at::Tensor& rows) {
          round(rows, first, grid, guide, rounded);
        });
  }
  QuantizedWeight& result = rounded.weight;
  result.matrix = scheme.coded ? pack_trits(rounded.levels, grid)
                               : kernels::pack(rounded.levels, grid);
  if (!std::isfinite(result.error) || !std::isfinite(result.energy)) {
    throw NotFiniteError(
        "quant",
        subject_of(reader_, id),
        "expected outputs whose squares have a sum, found none that is "
        "finite; check the model's weights");
  }
  return std::move(result);
}

std::vector<QuantizedWeight> LayerQuantizer::quantize(
    const std::vector<WeightScheme>& weights, const Hessian* hessian) const {
  const at::NoGradGuard no_grad;
  std::vector<QuantizedWeight> results;
  if (weights.empty()) return results;
  const model::WeightId& first = weights.front().first;
  const std::int64_t cols = model::weight_shape(reader_.config(), first).back();
  const Guide shared = guide(first, cols, hessian);
  for (const WeightScheme& weight : weights) {
    results.push_back(quantize_one(weight, shared));
    results.back().tokens = hessian != nullptr ? hessian->tokens : 0;
    results.back().scarce = hessian != nullptr && hessian->tokens < cols;
  }
  if (prices_ != nullptr && hessian != nullptr) {
    price_inputs({reader_, *prices_, *hessian, weights, device_}, results);
  }
  return results;
}

Json GptqOptions::to_json() const {
  Json json = grid.to_json();
  json["method"] = method == Method::kGptq ? "gptq" : "rtn";
  json["damping"] = damping;
  json["refine"] = refine;
  json["act_order"] = act_order;
  json["starved"] = starved == Starved::kMean ? "mean" : "rtn";
  json["calibrate"] =
      hessians.calibration == Calibration::kAll ? "all" : "routed";
  json["gate_weighted"] = hessians.gate_weighted;
  return json;
}

namespace {

// The weights as read, rounded, unpacked, multiplied, refined; their codes.
constexpr std::int64_t kBytesOfWeight = 7 * 4 + 2;

}  // namespace

std::int64_t site_working_bytes(std::int64_t rows, std::int64_t cols) {
  // The moments drawn together, damped, reversed, factored (fp64 at worst),
  // inverted; equations for scales.
  return cols * cols * (4 + 4 + 4 + 8 + 8 + 8 + 4) +
         rows * cols * kBytesOfWeight + 4 * 8 * kernels::kScaleEquations;
}

std::int64_t rows_working_bytes(
    std::int64_t rows, std::int64_t cols, bool coded) {
  // Codes of all rows, and packed; trits are also made signed, and written in
  // two codes.
  return rows * cols * (coded ? 5 : 2) +
         std::min(rows, kRowsAtOnce) * cols * kBytesOfWeight;
}

}  // namespace fettle::quant
