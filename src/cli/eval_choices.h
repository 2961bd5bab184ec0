// SPDX-License-Identifier: Apache-2.0
// `eval --choices`: reads the questions, has them answered, and tabulates.
#pragma once

#include <string>

#include "cli/command.h"
#include "cli/task_flags.h"
#include "sweep/evaluate.h"

namespace fettle::cli {

struct ChoiceRun {
  const std::string& model;  // folder
  const TaskFlags& flags;
  std::int64_t seq_len = 0;  // tokens read at most; 0: the model's positions
  sweep::EvalOptions eval = {};
};

Outcome run_choices(Session& session, const ChoiceRun& run);

}  // namespace fettle::cli
