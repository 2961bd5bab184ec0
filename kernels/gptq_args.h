// SPDX-License-Identifier: Apache-2.0
// What gptq.cpp hands to the code that rounds: sizes and raw pointers, checked.
#pragma once

#include <cstdint>

namespace fettle::kernels {

struct QuantGrid;

// The levels weights are rounded to (gptq.h), and the search for them: of
// integers scales of the range of the weights down to `least_share` of it, of
// trits thresholds up to kFarthest, in so many steps.
struct GridArgs {
  bool ternary;
  bool symmetric;
  int bits;
  float entropy_weight;
  int steps;
  float least_share;
};

// In root mean squares of the weights. Where bits count, a low threshold is
// left aside: rows with hardly a zero cost few bits too, but not by the code
// that they share with rows of many.
inline constexpr float kFarthest = 3.0f;
inline constexpr float kNearestWhereBitsCount = 0.5f;

GridArgs grid_args(const QuantGrid& grid);

// One group of columns of all rows. Scales are rounded to bfloat16; zeros are
// codes; a ternary weight is not 0 where its size passes the threshold.
struct FitGridArgs {
  GridArgs grid;
  std::int64_t rows, cols, groups;
  const float* w;
  std::int64_t w_stride;
  const float* importance;             // [cols]
  float *scales, *zeros, *thresholds;  // [rows], a row every `groups` values
};

// Some columns of all rows: codes, and what is passed on to the columns behind.
// By descent (refine.h) `w` is the slope of the error, `factor` its curvature,
// given `codes` are improved, and for trits `thresholds` is what it costs a
// weight not to be 0.
struct GptqBlockArgs {
  GridArgs grid;
  bool descent;
  std::int64_t rows, cols, groups;
  std::int64_t fit_group;  // columns of a group to be fitted here, or 0
  float* w;                // [rows, cols], rows `stride` apart, as codes are
  std::int64_t stride;
  const float* factor;           // [cols, cols], rows `stride` apart, or null
  const float* importance;       // [cols]
  const std::int32_t* group_of;  // [cols]
  float *scales, *zeros, *thresholds;  // [rows, groups]
  std::uint8_t* codes;
  float* errors;  // [rows, cols], or null
};

// Columns that hear of each other's losses one by one: at most so many are in a
// block; those behind it hear of them in one product.
inline constexpr std::int64_t kGptqColumns = 128;

namespace cpu {

void fit_grid(const FitGridArgs& args);
void gptq_block(const GptqBlockArgs& args);

}  // namespace cpu

}  // namespace fettle::kernels
