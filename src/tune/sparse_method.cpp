// SPDX-License-Identifier: Apache-2.0
#include "tune/sparse_method.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "tune/method_options.h"

namespace fettle::tune {

SparseOptions sparse_options(const TuneOptions& options) {
  return {
      .frac = options.frac,
      .scope = options.scope == "layer" ? Scope::kLayer : Scope::kGlobal,
      .score_sequences = options.score_sequences,
      .reselect_every = options.reselect_every,
      .drop_fraction = options.drop_fraction,
      .drop_by = options.drop_by == "moment" ? DropBy::kMoment : DropBy::kDelta,
      .rest_below = options.rest_below,
      .schedule = schedule_of(options),
      .adamw = adamw_options(options)};
}

BlockShape parse_block(const std::string& text, const char* option) {
  const std::size_t cross = text.find('x');
  const auto number = [&](std::string_view digits) {
    std::int64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value);
    const bool whole = end == digits.data() + digits.size();
    return error == std::errc() && whole && value <= 65536 ? value : 0;
  };
  const std::string_view all = text;
  if (cross != std::string::npos) {
    const BlockShape shape{
        number(all.substr(0, cross)), number(all.substr(cross + 1))};
    if (shape.rows > 0 && shape.cols > 0) return shape;
  }
  throw UserError(
      "tune",
      option,
      fmt::format("expected rows and columns such as 16x16, found '{}'", text));
}

double frozen_share(const TuneOptions& options) {
  double share = 0.0;
  for (std::int64_t s = options.reselect_every; s > 0 && s < options.steps;
       s += options.reselect_every) {
    share += drop_share(options.drop_fraction, s, options.steps);
  }
  return share;
}

double block_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    const SparseBlocksOptions& blocks) {
  std::int64_t all = 0;
  std::int64_t most = 0;     // blocks of a layer
  std::int64_t beside = 0;   // weights of a layer outside its experts
  std::int64_t largest = 0;  // weights of an expert's matrix
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const BlockLayout layout(config, l, blocks.roles, blocks.block);
    all += layout.count();
    most = std::max(most, layout.count());
    std::int64_t weights = 0;
    for (const BlockMatrix& matrix : layout.matrices()) {
      const std::int64_t size = matrix.grid.rows * matrix.grid.cols;
      if (model::is_expert_role(matrix.id.role)) {
        largest = std::max(largest, size);
      } else {
        weights += size;
      }
    }
    beside = std::max(beside, weights);
  }
  const double frac = blocks.sparse.frac;
  const double chosen = std::ceil(frac * static_cast<double>(all));
  const double working = std::min(static_cast<double>(most), chosen);
  const auto size = static_cast<double>(blocks.block.size());
  const double left = static_cast<double>(all) - chosen;
  // Masters, moments and gradients, frozen values, and of one layer the copies
  // of a new choice and 16 bytes a value to find its place; by block, numbers.
  const double values = 16.0 * chosen +
                        4.0 * std::min(frozen_share(options) * chosen, left) +
                        40.0 * working;
  // Scoring holds a layer's gradients, or one expert's in each thread.
  const bool whole = blocks.score == BlockScore::kSignedSum;
  const double scoring = 8.0 * static_cast<double>(
                                   whole ? most * blocks.block.size()
                                         : largest * at::get_num_threads());
  return values * size + 32.0 * chosen + 16.0 * static_cast<double>(all) +
         4.0 * static_cast<double>(beside) + scoring;
}

}  // namespace fettle::tune
