// SPDX-License-Identifier: Apache-2.0
#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>
#include <new>

#include "core/error.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

std::string message_of(int code) {
  std::array<PCRE2_UCHAR8, 256> buffer{};
  pcre2_get_error_message_8(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct Regex::Code {
  pcre2_code_8* compiled = nullptr;
  std::string subject;

  ~Code() { pcre2_code_free_8(compiled); }
};

Regex::Regex(const std::string& pattern, std::string_view subject)
    : code_(std::make_unique<Code>()) {
  code_->subject = subject;
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->compiled = pcre2_compile_8(
      reinterpret_cast<PCRE2_SPTR8>(pattern.data()),
      pattern.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
      &error,
      &offset,
      nullptr);
  if (code_->compiled == nullptr) {
    throw UserError(
        "tokenizer",
        subject,
        fmt::format(
            "the regular expression '{}' does not compile: {} at byte {}",
            pattern,
            message_of(error),
            offset));
  }
  // A machine without a just-in-time compiler interprets the pattern.
  pcre2_jit_compile_8(code_->compiled, PCRE2_JIT_COMPLETE);
}

Regex::~Regex() = default;
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;

struct Regex::Matcher::State {
  const Code* code;
  pcre2_match_data_8* data;

  ~State() { pcre2_match_data_free_8(data); }
};

Regex::Matcher::Matcher(const Regex& regex)
    : state_(std::make_unique<State>()) {
  state_->code = regex.code_.get();
  state_->data =
      pcre2_match_data_create_from_pattern_8(state_->code->compiled, nullptr);
  if (state_->data == nullptr) throw std::bad_alloc();
}

Regex::Matcher::~Matcher() = default;
Regex::Matcher::Matcher(Matcher&&) noexcept = default;

bool Regex::Matcher::find(
    std::string_view text, std::size_t from, Span& match) {
  const auto run = [&](std::uint32_t options) {
    return pcre2_match_8(
        state_->code->compiled,
        reinterpret_cast<PCRE2_SPTR8>(text.data()),
        text.size(),
        from,
        PCRE2_NO_UTF_CHECK | options,
        state_->data,
        nullptr);
  };
  int result = run(0);
  // The compiled code has a small stack; the interpreter's grows on the heap.
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(PCRE2_NO_JIT);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  if (result < 0) {
    throw UserError(
        "tokenizer",
        state_->code->subject,
        fmt::format(
            "a regular expression gave up on a text of {} bytes: {}; cut the "
            "text into shorter samples",
            text.size(),
            message_of(result)));
  }
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer_8(state_->data);
  match = {bounds[0], bounds[1]};
  return true;
}

Span Regex::Matcher::first_group() const {
  const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer_8(state_->data);
  if (pcre2_get_ovector_count_8(state_->data) < 2) {
    return {bounds[0], bounds[1]};
  }
  if (bounds[2] == PCRE2_UNSET) return {bounds[0], bounds[0]};
  return {bounds[2], bounds[3]};
}

std::size_t Regex::Matcher::next_character(
    std::string_view text, std::size_t at) {
  return at < text.size() ? at + utf8_length(text[at]) : at + 1;
}

}  // namespace fettle::text
