// SPDX-License-Identifier: Apache-2.0
// The options of single methods; a part of option_table.h.
#pragma once

#include "tune/option_text.h"

namespace fettle::tune {

template <typename Options, typename Visit>
void for_each_choice_option(Options& o, Visit& visit) {
  visit(
      OptionText{"frac", "Share of the experts' neurons to train", "usaf"},
      o.frac,
      Allowed{.least = 0.0, .most = 1.0, .above_least = true});
  visit(
      OptionText{"scope", "Choose over the model or in each layer", "usaf"},
      o.scope,
      one_of({"global", "layer"}));
  visit(
      OptionText{
          "score_sequences",
          "Sequences that choose what is trained",
          "usaf esft"},
      o.score_sequences,
      at_least(1));
  visit(
      OptionText{
          "reselect_every", "Steps between new choices; 0: once", "usaf"},
      o.reselect_every,
      at_least(0));
  visit(
      OptionText{"drop_fraction", "Share exchanged at first", "usaf"},
      o.drop_fraction,
      share());
  visit(
      OptionText{"drop_by", "Which of the chosen to drop", "usaf"},
      o.drop_by,
      one_of({"delta", "moment"}));
}

template <typename Options, typename Visit>
void for_each_expert_option(Options& o, Visit& visit) {
  visit(
      OptionText{
          "esft_share",
          "Smallest share of the tokens' choices that the trained experts of a "
          "layer must hold",
          "esft"},
      o.esft_share,
      Allowed{.least = 0.0, .most = 1.0, .above_least = true});
  visit(
      OptionText{"esft_by", "Share of choices or of mixing weights", "esft"},
      o.esft_by,
      one_of({"token", "gate"}));
}

}  // namespace fettle::tune
