// SPDX-License-Identifier: Apache-2.0
#include "text/raw_json.h"

#include <algorithm>

#include "core/json.h"

namespace fettle::text {
namespace {

constexpr std::size_t kNowhere = std::string_view::npos;

// Behind the string whose opening quote is at `at`.
std::size_t string_end(std::string_view text, std::size_t at) {
  for (++at; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;
    } else if (text[at] == '"') {
      return at + 1;
    }
  }
  return kNowhere;
}

// Behind the comma that follows a value, or at what else follows it.
std::size_t next_member(std::string_view text, std::size_t at) {
  at = skip_json_space(text, at);
  return at < text.size() && text[at] == ',' ? skip_json_space(text, at + 1)
                                             : at;
}

}  // namespace

std::size_t skip_json_space(std::string_view text, std::size_t at) {
  return std::min(text.find_first_not_of(" \t\r\n", at), text.size());
}

std::size_t json_value_end(std::string_view text, std::size_t at) {
  std::size_t depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = string_end(text, at);
      if (at == kNowhere) return kNowhere;
      if (depth == 0) return at;
      continue;
    }
    if (c == '{' || c == '[') {
      ++depth;
    } else if (c == '}' || c == ']') {
      if (depth == 0) return at;  // of what is around a number or a word
      if (--depth == 0) return at + 1;
    } else if (
        depth == 0 && std::string_view(", \t\r\n:").find(c) != kNowhere) {
      return at;
    }
    ++at;
  }
  return depth == 0 ? at : kNowhere;
}

std::vector<JsonMember> json_members(std::string_view object) {
  std::vector<JsonMember> members;
  std::size_t at = skip_json_space(object, skip_json_space(object, 0) + 1);
  while (at < object.size() && object[at] == '"') {
    const std::size_t key_end = string_end(object, at);
    const std::size_t colon = skip_json_space(object, key_end);
    const std::size_t begin = skip_json_space(object, colon + 1);
    const std::size_t end = json_value_end(object, begin);
    members.push_back(
        {Json::parse(object.substr(at, key_end - at)).get<std::string>(),
         object.substr(begin, end - begin)});
    at = next_member(object, end);
  }
  return members;
}

std::vector<std::string_view> json_items(std::string_view array) {
  std::vector<std::string_view> items;
  std::size_t at = skip_json_space(array, skip_json_space(array, 0) + 1);
  while (at < array.size() && array[at] != ']') {
    const std::size_t end = json_value_end(array, at);
    items.push_back(array.substr(at, end - at));
    at = next_member(array, end);
  }
  return items;
}

std::string json_object_text(const std::vector<JsonMember>& members) {
  std::string text = "{";
  for (const JsonMember& member : members) {
    if (text.size() > 1) text += ", ";
    text += Json(member.key).dump();
    text += ": ";
    text += member.value;
  }
  return text + "}";
}

}  // namespace fettle::text
