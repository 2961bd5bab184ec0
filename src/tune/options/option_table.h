// SPDX-License-Identifier: Apache-2.0
// Every option of a tune run once: its name, what it does, who reads it and
// what it may be. Flags, checks, and records all follow from this table.
#pragma once

#include <type_traits>

#include "tune/options/default_rates.h"
#include "tune/options/option_table_methods.h"
#include "tune/options/option_table_whole.h"
#include "tune/options/option_text.h"
#include "tune/options/tune_options.h"

namespace fettle::tune {

// Calls visit(OptionText, value, Allowed) for the options of each kind.
// Options: TuneOptions or const TuneOptions.
template <typename Options, typename Visit>
void for_each_run_option(Options& o, Visit& visit) {
  visit(
      OptionText{"method", "How to tune: a method, or several joined by +"},
      o.method,
      Allowed{});
  visit(OptionText{"steps", "Steps of the whole run"}, o.steps, at_least(1));
  visit(
      OptionText{"tokens_per_step", "Tokens of a step"},
      o.tokens_per_step,
      at_least(1));
  visit(
      OptionText{
          "seq_len",
          "Tokens of a sequence, in which documents are packed; 0: 2048, or "
          "the "
          "model's positions or tokens_per_step where those are fewer"},
      o.seq_len,
      at_least(2));
  visit(
      OptionText{"save_every", "Steps between saved states; 0: at the end"},
      o.save_every,
      at_least(0));
  visit(
      OptionText{"eval_every", "Steps between evaluations; 0: the ends"},
      o.eval_every,
      at_least(0));
  visit(
      OptionText{
          "patience",
          "Evaluations without a lower held-out loss that end the run; 0: any"},
      o.patience,
      at_least(0));
  visit(
      OptionText{
          "max_bad_steps",
          "Steps in a row without a finite loss or gradient that end the run; "
          "fewer are skipped"},
      o.max_bad_steps,
      at_least(1));
  visit(
      OptionText{
          "keep_best",
          "Leave the adapter of the best evaluation, not of the last step; "
          "auto: with --eval-data"},
      o.keep_best,
      one_of({"auto", "yes", "no"}));
}

template <typename Options, typename Visit>
void for_each_optimizer_option(Options& o, Visit& visit) {
  static const std::string kRates =
      "Peak learning rate; 0: the method's own (" + default_rates_text() + ")";
  visit(OptionText{"lr", kRates.c_str()}, o.lr, at_least(0));
  visit(
      OptionText{
          "warmup",
          "Until the peak rate: a share of the run below 1, or steps"},
      o.warmup,
      at_least(0));
  visit(
      OptionText{"min_lr_ratio", "Final rate as a share of the peak"},
      o.min_lr_ratio,
      share());
  visit(
      OptionText{
          "weight_decay",
          "Decoupled weight decay of AdamW; norms and biases have none"},
      o.weight_decay,
      at_least(0));
  const Allowed decay{.least = 0.0, .most = 1.0, .below_most = true};
  visit(OptionText{"beta1", "AdamW's first decay"}, o.beta1, decay);
  visit(OptionText{"beta2", "AdamW's second decay"}, o.beta2, decay);
  visit(OptionText{"epsilon", "AdamW's epsilon"}, o.epsilon, positive());
  visit(
      OptionText{"clip_norm", "Largest gradient norm; 0: any"},
      o.clip_norm,
      at_least(0));
}

template <typename Options, typename Visit>
void for_each_router_option(Options& o, Visit& visit) {
  visit(
      OptionText{
          "router",
          "Routers: frozen, or trained by the gradient of the chosen experts "
          "(topk), with falling noise on the choice (gumbel), or of all "
          "experts "
          "(densemixer); auto: topk with usaf and router"},
      o.router,
      one_of({"auto", "frozen", "topk", "gumbel", "densemixer"}));
  visit(
      OptionText{"gumbel_noise", "With --router gumbel: its size at first"},
      o.gumbel_noise,
      at_least(0));
  visit(
      OptionText{
          "router_warmup",
          "Before the routers train: a share of the run below 1, or steps"},
      o.router_warmup,
      at_least(0));
  visit(
      OptionText{
          "router_lr", "Peak learning rate of the routers; 0: their own"},
      o.router_lr,
      at_least(0));
}

template <typename Options, typename Visit>
void for_each_option(Options& options, Visit visit) {
  static_assert(
      std::is_same_v<std::remove_const_t<Options>, TuneOptions>,
      "options of a tune run");
  for_each_run_option(options, visit);
  for_each_optimizer_option(options, visit);
  for_each_choice_option(options, visit);
  for_each_block_option(options, visit);
  for_each_router_option(options, visit);
  for_each_teacher_option(options, visit);
  for_each_expert_option(options, visit);
  for_each_full_option(options, visit);
  for_each_lora_option(options, visit);
  for_each_condenser_option(options, visit);
}

}  // namespace fettle::tune
