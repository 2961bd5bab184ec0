// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace fettle::cli {

// A command line as a process among others: heeds signals, and whatever goes
// wrong is one line and an exit status. Returns the status.
int run_process(int argc, char** argv);

}  // namespace fettle::cli
