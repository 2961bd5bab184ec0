// SPDX-License-Identifier: Apache-2.0
#include "cli/resume_flags.h"

namespace fettle::cli {

void add_resume_flags(CLI::App& app, bool& resume, bool& restart) {
  auto* on = app.add_flag(
      "--resume", resume, "Go on where a killed or stopped run was last saved");
  app.add_flag(
         "--restart",
         restart,
         "Throw away what a killed or stopped run saved, and begin anew")
      ->excludes(on);
}

}  // namespace fettle::cli
