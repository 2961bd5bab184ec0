// SPDX-License-Identifier: Apache-2.0
// What is said of a failure, and the exit status that goes with it. Whatever
// went wrong is one line.
#pragma once

#include <string_view>

namespace fettle::cli {

// Prints the exception being handled and returns its exit status.
int report_failure();

// Prints that another rank is lost, unless another thread did, and returns the
// exit status of that.
int report_rank_failure(std::string_view message);

// Has exceptions that nobody catches, such as those of a thread, end the
// program with report_failure's status in the place of an abort.
void report_uncaught();

// Throws UserError unless all that was written to the standard output arrived.
void check_stdout();

}  // namespace fettle::cli
