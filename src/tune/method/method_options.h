// SPDX-License-Identifier: Apache-2.0
// What all methods take from the options in the same way.
#pragma once

#include "tune/options/default_rates.h"
#include "tune/options/tune_options.h"
#include "tune/part/adamw.h"
#include "tune/part/schedule.h"

namespace fettle::tune {

inline AdamWOptions adamw_options(const TuneOptions& options) {
  return {options.beta1, options.beta2, options.epsilon, options.weight_decay};
}

inline Schedule schedule_of(const TuneOptions& options, const char* method) {
  return {
      peak_rate(options, method),
      warmup_steps(options.warmup, options.steps),
      options.steps,
      options.min_lr_ratio};
}

}  // namespace fettle::tune
