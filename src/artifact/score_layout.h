// SPDX-License-Identifier: Apache-2.0
// Names by which score files are written and read.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "artifact/score_file.h"

namespace fettle::artifact::score_layout {

inline constexpr std::int64_t kFormat = 3;
inline constexpr std::int64_t kFormatWithoutChecksum = 2;
inline constexpr const char* kArrays = "scores.safetensors";
inline constexpr const char* kText = "scores.json";

inline constexpr std::array<std::pair<Unit, std::string_view>, 4> kUnits{{
    {Unit::kNeuron, "neuron"},
    {Unit::kExpert, "expert"},
    {Unit::kLayer, "layer"},
    {Unit::kPair, "pair"},
}};

inline constexpr std::array<std::pair<Reduction, std::string_view>, 4>
    kReductions{{
        {Reduction::kSum, "sum"},
        {Reduction::kMax, "max"},
        {Reduction::kSame, "same"},
        {Reduction::kNone, "none"},
    }};

inline std::string array_name(std::size_t layer, std::string_view rest) {
  return fmt::format("layers.{}.{}", layer, rest);
}

inline std::string rank_name(
    std::size_t layer, std::size_t run, std::string_view score) {
  return array_name(layer, fmt::format("ranks.{}.{}", run, score));
}

}  // namespace fettle::artifact::score_layout
