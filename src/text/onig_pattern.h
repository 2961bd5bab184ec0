// SPDX-License-Identifier: Apache-2.0
// tokenizer.json holds patterns in Oniguruma's Ruby syntax. This translates the
// part that tokenizers use into PCRE2's syntax with the same meaning, and
// refuses the rest by name.
#pragma once

#include <string>
#include <string_view>

namespace fettle::text {

// Returns a PCRE2 pattern, to be compiled with UTF, UCP and MULTILINE, that
// matches what `pattern` matches in Oniguruma (Ruby syntax, UTF-8).
// Throws UserError about `subject` for a construct that has no translation.
std::string translate_onig(std::string_view pattern, std::string_view subject);

// The pattern that matches `literal` itself.
std::string escape_regex(std::string_view literal);

}  // namespace fettle::text
