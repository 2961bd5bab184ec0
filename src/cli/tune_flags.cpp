// SPDX-License-Identifier: Apache-2.0
#include "cli/tune_flags.h"

namespace fettle::cli {

void add_tune_flags(CLI::App& app, tune::TuneOptions& o) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return app.add_option(name, value, help)->capture_default_str();
  };
  add("--method", o.method, "How to tune")
      ->check(CLI::IsMember(tune::methods()));
  add("--steps", o.steps, "Steps of the whole run");
  add("--tokens-per-step", o.tokens_per_step, "Tokens of a step");
  add("--seq-len", o.seq_len, "Tokens of a sequence; documents are packed");
  add("--lr", o.lr, "Peak learning rate of experts");
  add("--warmup-steps", o.warmup_steps, "Steps until the peak rate");
  add("--min-lr-ratio", o.min_lr_ratio, "Final rate as a share of the peak");
  add("--weight-decay", o.weight_decay, "Decoupled weight decay");
  add("--beta1", o.beta1, "AdamW's first decay");
  add("--beta2", o.beta2, "AdamW's second decay");
  add("--epsilon", o.epsilon, "AdamW's epsilon");
  add("--clip-norm", o.clip_norm, "Largest gradient norm; 0: any");
  add("--frac", o.frac, "Share of the experts' neurons that is trained");
  add("--scope", o.scope, "Choose neurons over the model or in each layer")
      ->check(CLI::IsMember({"global", "layer"}));
  add("--score-sequences",
      o.score_sequences,
      "Sequences whose gradients choose the neurons");
  add("--reselect-every",
      o.reselect_every,
      "Steps between new choices; 0: once");
  add("--drop-fraction", o.drop_fraction, "Share exchanged at first");
  add("--drop-by", o.drop_by, "Which of the chosen to drop")
      ->check(CLI::IsMember({"delta", "moment"}));
  app.add_flag(
      "--train-router,!--freeze-router",
      o.train_router,
      "Train the routers after their warm-up (default), or never");
  add("--router-warmup", o.router_warmup, "Steps before the routers train");
  add("--router-lr", o.router_lr, "Peak learning rate of the routers");
  add("--save-every",
      o.save_every,
      "Steps between saved states; 0: at the end");
  add("--eval-every", o.eval_every, "Steps between evaluations; 0: the ends");
  app.add_flag("--resume", o.resume, "Go on where a killed run stopped");
}

}  // namespace fettle::cli
