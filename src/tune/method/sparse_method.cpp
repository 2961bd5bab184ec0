// SPDX-License-Identifier: Apache-2.0
#include "tune/method/sparse_method.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "core/error.h"
#include "model/layers/layer_tap.h"
#include "tune/method/method_options.h"

namespace fettle::tune {

bool by_layer(const TuneOptions& options) {
  return options.scope == "layer" ||
         (options.scope == "auto" && options.unit == "element");
}

SparseOptions sparse_options(const TuneOptions& options, const char* method) {
  return {
      .frac = options.frac,
      .scope = by_layer(options) ? Scope::kLayer : Scope::kGlobal,
      .score_sequences = options.score_sequences,
      .reselect_every = options.reselect_every,
      .drop_fraction = options.drop_fraction,
      .drop_by = options.drop_by == "moment" ? DropBy::kMoment : DropBy::kDelta,
      .rest_below = options.rest_below,
      .schedule = schedule_of(options, method),
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
    share += cosine_fall(options.drop_fraction, s, options.steps);
  }
  return share;
}

double ranking_bytes(const TuneOptions& options, double all, double most) {
  return 8.0 * all + 24.0 * (by_layer(options) ? most : all);
}

namespace {

struct Sizes {
  double all = 0.0;      // blocks
  double most = 0.0;     // blocks of a layer
  double beside = 0.0;   // weights of a layer whose gradients are formed
  double largest = 0.0;  // weights of an expert's matrix
};

Sizes sizes_of(
    const model::ModelConfig& config, const SparseBlocksOptions& blocks) {
  Sizes sizes;
  for (std::int64_t l = 0; l < config.num_layers(); ++l) {
    const BlockLayout layout(config, l, blocks.roles, blocks.block);
    const auto count = static_cast<double>(layout.count());
    sizes.all += count;
    sizes.most = std::max(sizes.most, count);
    double beside = 0.0;
    for (const BlockMatrix& matrix : layout.matrices()) {
      const auto size =
          static_cast<double>(matrix.grid.rows * matrix.grid.cols);
      if (model::is_expert_role(matrix.id.role)) {
        sizes.largest = std::max(sizes.largest, size);
      } else if (!model::is_tapped(matrix.id.role)) {
        beside += size;
      }
    }
    sizes.beside = std::max(sizes.beside, beside);
  }
  return sizes;
}

}  // namespace

PartBytes block_bytes(
    const TuneOptions& options,
    const model::ModelConfig& config,
    const SparseBlocksOptions& blocks,
    at::Device device) {
  const Sizes sizes = sizes_of(config, blocks);
  const double frac = blocks.sparse.frac;
  const double chosen = std::ceil(frac * sizes.all);
  const double working = std::min(sizes.most, chosen);
  const double frozen =
      std::min(frozen_share(options) * chosen, sizes.all - chosen);
  const auto size = static_cast<double>(blocks.block.size());
  // Masters, moments and gradients, frozen values, and of one layer the copies
  // of a new choice; by block, a layer's numbers and 16 bytes to find a place.
  const double values =
      size * (16.0 * chosen + 4.0 * frozen + 24.0 * working) + 24.0 * working;
  // Scoring holds a layer's gradients, or one expert's in each thread, and the
  // layer's scores.
  const bool whole = blocks.score == BlockScore::kSignedSum;
  const double scoring =
      4.0 * sizes.most +
      8.0 * (whole ? sizes.most * size : sizes.largest * at::get_num_threads());
  PartBytes bytes = at_work(
      values + 4.0 * sizes.beside + scoring, device, 12.0 * size * chosen);
  // Numbers in codes of at most two bits above their information; a layer's
  // while they are compared.
  const double coded = (std::log2(1.0 / frac) + 2.0) / 8.0;
  const bool again = options.reselect_every > 0;
  bytes.ram +=
      coded * (chosen + frozen) + (again ? 4.0 * chosen : 0.0) + 64.0 * working;
  // The first choice in each layer by itself ranks a layer's scores alone.
  bytes.ram +=
      blocks.sparse.scope == Scope::kLayer && !again
          ? 8.0 * sizes.most
          : ranking_bytes(options, sizes.all, sizes.most) + 16.0 * chosen;
  return bytes;
}

}  // namespace fettle::tune
