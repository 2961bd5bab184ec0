// SPDX-License-Identifier: Apache-2.0
// What the beginnings of earlier prompts left in the layers' states, so that a
// prompt which begins alike is not passed there again. Beginnings are kept in
// the parts that prompts are passed in: what a part leaves depends on nothing
// but the tokens up to its end, so that an answer has the same bits with and
// without.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "decode/sequence_pass.h"

namespace fettle::decode {

class PrefixCache {
 public:
  // Keeps parts of `part` tokens, `tokens` in all at most; then those go that
  // were not used for the longest time.
  PrefixCache(std::int64_t part, std::int64_t tokens);

  // Adds to a state, which holds whole parts of the prompt, those behind that
  // are here; at least one token stays to be passed. Returns their tokens.
  std::int64_t extend(
      SequenceState& state, std::span<const std::int32_t> prompt);
  // Keeps what the last part of the prompt's `state` left, where that was a
  // whole one whose beginning is here.
  void keep(SequenceState& state, std::span<const std::int32_t> prompt);

  std::int64_t tokens() const { return parts_ * part_; }  // held

 private:
  using Ids = std::vector<std::int32_t>;
  struct Part {
    std::vector<model::LayerState> layers = {};
    std::map<Ids, std::unique_ptr<Part>> next = {};
    std::uint64_t used = 0;
  };

  Ids ids_of(std::span<const std::int32_t> prompt, std::int64_t begin) const;
  // The part that ends behind `length` tokens of the prompt; null: not here.
  Part* find(std::span<const std::int32_t> prompt, std::int64_t length);
  void forget_oldest();

  const std::int64_t part_, most_;
  Part root_;
  std::int64_t parts_ = 0;
  std::uint64_t clock_ = 0;
};

}  // namespace fettle::decode
