// SPDX-License-Identifier: Apache-2.0
#include "cli/process.h"

#include "cli/argument_checks.h"
#include "cli/cli.h"
#include "cli/failure.h"
#include "cli/interrupt.h"

namespace fettle::cli {

int run_process(int argc, char** argv) {
  report_uncaught();
  try {
    heed_signals();
    for (int i = 1; i < argc; ++i) require_utf8(argv[i]);
    const int status = run(argc, argv);
    check_stdout();
    return status == 0 && stopped_by() != 0 ? 128 + stopped_by() : status;
  } catch (...) {
    return report_failure();
  }
}

}  // namespace fettle::cli
