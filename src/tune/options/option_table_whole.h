// SPDX-License-Identifier: Apache-2.0
// The options of methods that train whole weights; a part of option_table.h.
#pragma once

#include "tune/options/option_text.h"

namespace fettle::tune {

template <typename Options, typename Visit>
void for_each_full_option(Options& o, Visit& visit) {
  visit(
      OptionText{
          "match",
          "Train the weights whose names this regular expression finds a place "
          "in",
          "full"},
      o.match,
      Allowed{});
  visit(
      OptionText{
          "embeddings",
          "Train the embeddings and the head too, or leave both frozen",
          "full"},
      o.embeddings,
      one_of({"train", "frozen"}));
  visit(
      OptionText{
          "states",
          "Keep masters and moments on disk (12 bytes a weight, twice; "
          "gradients are clipped by layer), in RAM or on the device",
          "full"},
      o.states,
      one_of({"disk", "ram", "device"}));
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
