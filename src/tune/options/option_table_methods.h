// SPDX-License-Identifier: Apache-2.0
// The options of single methods and of teachers; a part of option_table.h.
#pragma once

#include "tune/options/option_text.h"

namespace fettle::tune {

template <typename Options, typename Visit>
void for_each_choice_option(Options& o, Visit& visit) {
  visit(
      OptionText{"frac", "Share of the experts' weights to train", "usaf smt"},
      o.frac,
      Allowed{.least = 0.0, .most = 1.0, .above_least = true});
  visit(
      OptionText{
          "scope",
          "Choose over the model or in each layer; auto: in each layer with "
          "--unit element, else over the model",
          "usaf smt"},
      o.scope,
      one_of({"auto", "global", "layer"}));
  visit(
      OptionText{
          "score_sequences",
          "Sequences that choose what is trained",
          "usaf smt esft condenser"},
      o.score_sequences,
      at_least(1));
  visit(
      OptionText{
          "reselect_every", "Steps between new choices; 0: once", "usaf smt"},
      o.reselect_every,
      at_least(0));
  visit(
      OptionText{"drop_fraction", "Share exchanged at first", "usaf smt"},
      o.drop_fraction,
      share());
  visit(
      OptionText{"drop_by", "Which of the chosen to drop", "usaf smt"},
      o.drop_by,
      one_of({"delta", "moment"}));
}

template <typename Options, typename Visit>
void for_each_block_option(Options& o, Visit& visit) {
  visit(
      OptionText{
          "rest_below",
          "An expert with less than this part of its layer's mean of mixing "
          "weights in a step is not updated; 0: each is",
          "usaf smt"},
      o.rest_below,
      at_least(0));
  visit(
      OptionText{
          "unit",
          "Train whole neurons, blocks of --block, or single weights",
          "usaf"},
      o.unit,
      one_of({"neuron", "block", "element"}));
  visit(
      OptionText{"block", "Rows x columns of a block", "usaf smt"},
      o.block,
      Allowed{});
  visit(
      OptionText{
          "attention_frac", "Share of the attention's weights to train", "smt"},
      o.attention_frac,
      share());
}

template <typename Options, typename Visit>
void for_each_lora_option(Options& o, Visit& visit) {
  visit(
      OptionText{
          "lora_targets",
          "Beside what pairs stand: experts, attention, shared, dense",
          "lora"},
      o.lora_targets,
      Allowed{});
  visit(OptionText{"rank", "Rank of a pair", "lora"}, o.rank, at_least(1));
  visit(
      OptionText{"lora_alpha", "Pairs count alpha / rank", "lora"},
      o.lora_alpha,
      positive());
}

template <typename Options, typename Visit>
void for_each_condenser_option(Options& o, Visit& visit) {
  visit(
      OptionText{
          "condensers",
          "Experts of a layer that come to work on every token",
          "condenser"},
      o.condensers,
      at_least(1));
  visit(
      OptionText{
          "condenser_after",
          "Steps before they are chosen; -1: half of the run",
          "condenser"},
      o.condenser_after,
      at_least(-1));
  visit(
      OptionText{
          "bias_rate",
          "What a step adds to or takes from a router's bias before that",
          "condenser"},
      o.bias_rate,
      at_least(0));
  visit(
      OptionText{"condenser_bias_rate", "Likewise from then on", "condenser"},
      o.condenser_bias_rate,
      at_least(0));
}

template <typename Options, typename Visit>
void for_each_teacher_option(Options& o, Visit& visit) {
  visit(
      OptionText{
          "kd_weight",
          "With --teacher: share of its loss; the data's has the rest"},
      o.kd_weight,
      share());
  visit(
      OptionText{"kd_top", "With --teacher: likeliest tokens that it names"},
      o.kd_top,
      at_least(1));
}

}  // namespace fettle::tune
