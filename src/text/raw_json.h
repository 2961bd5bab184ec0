// SPDX-License-Identifier: Apache-2.0
// Where the values of a JSON text begin and end, so that a part of it can be
// handed on as it was written: keys in their order, numbers with their digits.
// Finds borders only; the text between them may still be malformed.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fettle::text {

// The first place at or behind `at` that is no white space.
std::size_t skip_json_space(std::string_view text, std::size_t at);

// Where the value that begins at `at` ends; npos: not in this text.
std::size_t json_value_end(std::string_view text, std::size_t at);

struct JsonMember {
  std::string key;
  std::string_view value;  // as it was written
};

// The members of a well-formed object, and the items of a well-formed array, in
// their order.
std::vector<JsonMember> json_members(std::string_view object);
std::vector<std::string_view> json_items(std::string_view array);

// An object of these members.
std::string json_object_text(const std::vector<JsonMember>& members);

}  // namespace fettle::text
