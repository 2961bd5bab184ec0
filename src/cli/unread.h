// SPDX-License-Identifier: Apache-2.0
// Options that have no effect beside the others are refused, not ignored.
#pragma once

#include <CLI/CLI.hpp>
#include <initializer_list>

namespace fettle::cli {

struct Reader {
  const char* options;  // by spaces, with dashes
  bool reads;           // whether anything reads them in this run
  const char* who;      // "--data", beside which they have an effect
};

// Throws UsageError naming the first option that was given and that nothing
// reads.
void refuse_unread(
    const CLI::App& parser, std::initializer_list<Reader> readers);

}  // namespace fettle::cli
