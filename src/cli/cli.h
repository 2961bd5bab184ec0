// SPDX-License-Identifier: Apache-2.0
#pragma once
namespace fettle::cli {
// Parses the command line, runs the command and returns the exit status.
int run(int argc, char** argv);
}  // namespace fettle::cli
