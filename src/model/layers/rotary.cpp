// SPDX-License-Identifier: Apache-2.0
// Rotary frequencies under every scaling that the families use. The formulas
// follow transformers' modeling_rope_utils.py, step by step in fp32 where it
// computes in fp32.
#include <cmath>
#include <numbers>

#include "core/error.h"
#include "model/layers/rotary.h"

namespace fettle::model {
namespace {

at::Tensor exponents(const RopeConfig& rope) {
  return at::arange(0, rope.dim, 2, at::kFloat) / static_cast<double>(rope.dim);
}

at::Tensor plain_frequencies(const RopeConfig& rope, double theta) {
  return 1.0 / at::pow(at::Scalar(theta), exponents(rope));
}

// YaRN (Peng et al. 2023, section 3): dimensions that turn often enough in the
// original context keep their frequency, slow ones are interpolated.
double correction_dim(const RopeConfig& rope, double rotations) {
  return static_cast<double>(rope.dim) *
         std::log(
             static_cast<double>(rope.original_max_position) /
             (rotations * 2 * std::numbers::pi)) /
         (2 * std::log(rope.theta));
}

at::Tensor yarn_frequencies(const RopeConfig& rope) {
  double low = correction_dim(rope, rope.beta_fast);
  double high = correction_dim(rope, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(rope.dim - 1));
  if (low == high) high += 0.001;
  const at::Tensor ramp =
      ((at::arange(rope.dim / 2, at::kFloat) - low) / (high - low)).clamp(0, 1);
  const at::Tensor kept = plain_frequencies(rope, rope.theta);
  return kept / rope.factor * ramp + kept * (1 - ramp);
}

at::Tensor llama3_frequencies(const RopeConfig& rope) {
  const double old_context = static_cast<double>(rope.original_max_position);
  const at::Tensor plain = plain_frequencies(rope, rope.theta);
  const at::Tensor wavelength = 2 * std::numbers::pi / plain;
  const at::Tensor smooth = (old_context / wavelength - rope.low_freq_factor) /
                            (rope.high_freq_factor - rope.low_freq_factor);
  const at::Tensor is_long = wavelength > old_context / rope.low_freq_factor;
  const at::Tensor is_short = wavelength < old_context / rope.high_freq_factor;
  const at::Tensor between =
      (1 - smooth) * plain / rope.factor + smooth * plain;
  return at::where(
      is_long, plain / rope.factor, at::where(is_short, plain, between));
}

at::Tensor longrope_frequencies(const RopeConfig& rope, std::int64_t longest) {
  const auto& factors = longest > rope.original_max_position
                            ? rope.long_factor
                            : rope.short_factor;
  FETTLE_ASSERT(static_cast<std::int64_t>(factors.size()) == rope.dim / 2);
  const at::Tensor scale = at::tensor(factors, at::kDouble).to(at::kFloat);
  return 1.0 / (scale * at::pow(at::Scalar(rope.theta), exponents(rope)));
}

at::Tensor dynamic_frequencies(const RopeConfig& rope, std::int64_t longest) {
  const double max = static_cast<double>(rope.max_position);
  const double length = std::max(static_cast<double>(longest), max);
  const double dim = static_cast<double>(rope.dim);
  const double theta =
      rope.theta *
      std::pow(rope.factor * length / max - (rope.factor - 1), dim / (dim - 2));
  return plain_frequencies(rope, theta);
}

// The first angles turn as those of a whole head would, the others not at all.
at::Tensor proportional_frequencies(const RopeConfig& rope) {
  at::Tensor result = plain_frequencies(rope, rope.theta) / rope.factor;
  result.narrow(0, rope.angles, result.size(0) - rope.angles).zero_();
  return result;
}

at::Tensor frequencies(const RopeConfig& rope, std::int64_t longest) {
  if (rope.type == "linear") {
    return plain_frequencies(rope, rope.theta) / rope.factor;
  }
  if (rope.type == "dynamic") return dynamic_frequencies(rope, longest);
  if (rope.type == "yarn") return yarn_frequencies(rope);
  if (rope.type == "longrope") return longrope_frequencies(rope, longest);
  if (rope.type == "llama3") return llama3_frequencies(rope);
  if (rope.type == "proportional") return proportional_frequencies(rope);
  FETTLE_ASSERT(rope.type == "default");
  return plain_frequencies(rope, rope.theta);
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double attention_factor(const RopeConfig& rope) {
  if (rope.attention_factor) return *rope.attention_factor;
  if (rope.type == "yarn") {
    if (rope.mscale.value_or(0) != 0 && rope.mscale_all_dim.value_or(0) != 0) {
      return yarn_mscale(rope.factor, *rope.mscale) /
             yarn_mscale(rope.factor, *rope.mscale_all_dim);
    }
    return yarn_mscale(rope.factor, 1.0);
  }
  if (rope.type == "longrope" && rope.factor > 1) {
    const double original = static_cast<double>(rope.original_max_position);
    return std::sqrt(1 + std::log(rope.factor) / std::log(original));
  }
  return 1.0;
}

}  // namespace

RotaryTables rotary_tables(
    const RopeConfig& rope, const at::Tensor& positions, std::int64_t longest) {
  const at::NoGradGuard no_grad;
  const at::Tensor inv_freq = frequencies(rope, longest).to(positions.device());
  const at::Tensor angles = at::outer(positions.to(at::kFloat), inv_freq);
  const double scale = attention_factor(rope);
  return {
      (angles.cos() * scale).contiguous(), (angles.sin() * scale).contiguous()};
}

RotaryTables rotary_tables(const RopeConfig& rope, const TokenBatch& tokens) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t s = 0; s < tokens.sequences(); ++s) {
    lengths.push_back(tokens.starts[s + 1] - tokens.starts[s]);
  }
  return rotary_tables(rope, tokens, lengths);
}

RotaryTables rotary_tables(
    const RopeConfig& rope,
    const TokenBatch& tokens,
    const std::vector<std::int64_t>& lengths) {
  if (rope.type != "dynamic" && rope.type != "longrope") {
    return rotary_tables(rope, tokens.positions, 0);
  }
  std::vector<at::Tensor> cos, sin;
  for (std::int64_t s = 0; s < tokens.sequences(); ++s) {
    const std::int64_t part = tokens.starts[s + 1] - tokens.starts[s];
    const RotaryTables tables = rotary_tables(
        rope, tokens.positions.narrow(0, tokens.starts[s], part), lengths[s]);
    cos.push_back(tables.cos);
    sin.push_back(tables.sin);
  }
  return {at::cat(cos), at::cat(sin)};
}

}  // namespace fettle::model
