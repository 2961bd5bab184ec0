// SPDX-License-Identifier: Apache-2.0
// The two kinds of failure. A UserError is bad input, and its text is one line
// that says what was expected, what was found and what to do. An InternalError
// is a bug of ours. Only the command line prints them or exits.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace fettle {

// Bad input: exit status 1.
class UserError : public std::runtime_error {
 public:
  // `stage`: the part of Fettle that refuses ("safetensors", "tokenizer",
  // "trim"). `subject`: the file, tensor or option refused. `message`: what was
  // expected, what was found; what to do.
  UserError(
      std::string_view stage,
      std::string_view subject,
      std::string_view message);
};

// A command line that makes no sense: exit status 2.
class UsageError : public UserError {
 public:
  using UserError::UserError;
};

// A broken invariant of Fettle itself: exit status 3.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

[[noreturn]] void assertion_failed(
    const char* condition, const char* file, int line);

}  // namespace fettle

// Checks an invariant that no input can break.
#define FETTLE_ASSERT(condition)                                  \
  do {                                                            \
    if (!(condition)) {                                           \
      ::fettle::assertion_failed(#condition, __FILE__, __LINE__); \
    }                                                             \
  } while (false)
