// SPDX-License-Identifier: Apache-2.0
// What a model is to be fitted to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace fettle::chain {

enum class Purpose { kInference, kTune };

// Bytes of the machine that will run the model, which may be another one.
struct Bounds {
  std::optional<std::int64_t> vram;
  std::optional<std::int64_t> ram;
  std::optional<std::int64_t> disk;     // for the folder that is written
  std::optional<std::int64_t> weights;  // --budget: of the weights alone

  bool any() const { return vram || ram || disk || weights; }
};

struct FitRequest {
  Bounds bounds;
  Purpose purpose = Purpose::kInference;
  std::string engine = "fettle";
  std::int64_t context = 0;   // tokens of a conversation; 0: see settled()
  std::int64_t parallel = 1;  // conversations at one time
  double keep_min = 0.25;     // least share of the experts' neurons
  std::string bits_min;       // least scheme of theirs; empty: any

  // Where the weights are multiplied: on a card, unless only RAM is given.
  bool on_card() const { return bounds.vram || !bounds.ram; }
};

}  // namespace fettle::chain
