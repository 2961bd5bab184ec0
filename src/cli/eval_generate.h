// SPDX-License-Identifier: Apache-2.0
// `eval --generate`: has questions answered in writing, and compares.
#pragma once

#include <string>

#include "cli/command.h"
#include "cli/task_flags.h"

namespace fettle::cli {

struct GenerateRun {
  const std::string& model;  // folder
  const TaskFlags& flags;
};

Outcome run_questions(Session& session, const GenerateRun& run);

}  // namespace fettle::cli
