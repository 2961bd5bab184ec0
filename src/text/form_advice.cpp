// SPDX-License-Identifier: Apache-2.0
// Which option reads a row, by the names and kinds of its columns.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "text/raw_json.h"
#include "text/row_form.h"

namespace fettle::text {
namespace {

using Members = std::vector<JsonMember>;

class Advice {
 public:
  explicit Advice(std::string_view row) : members_(json_members(row)) {
    std::erase_if(members_, [](const JsonMember& member) {
      return member.value == "null";
    });
  }

  std::string text() const {
    std::string keys = "no columns";
    if (!members_.empty()) {
      std::vector<std::string> names;
      for (const JsonMember& member : members_) names.push_back(member.key);
      constexpr std::size_t kMost = 8;
      const bool more = names.size() > kMost;
      names.resize(std::min(names.size(), kMost));
      keys = fmt::format("{}{}", fmt::join(names, ", "), more ? ", …" : "");
    }
    const std::string option = advice();
    return option.empty() ? keys : fmt::format("{}; {}", keys, option);
  }

 private:
  const JsonMember* find(std::string_view key) const {
    const auto found = std::ranges::find(members_, key, &JsonMember::key);
    return found == members_.end() ? nullptr : &*found;
  }

  bool is_text(std::string_view key) const {
    const JsonMember* member = find(key);
    return member != nullptr && member->value.starts_with('"');
  }

  // A list of objects that have this key.
  bool is_list_with(std::string_view column, std::string_view key) const {
    const JsonMember* member = find(column);
    if (member == nullptr || !member->value.starts_with('[')) return false;
    const auto items = json_items(member->value);
    if (items.empty() || !items[0].starts_with('{')) return false;
    const auto keys = json_members(items[0]);
    return std::ranges::find(keys, key, &JsonMember::key) != keys.end();
  }

  std::string first_text(std::initializer_list<const char*> names) const {
    for (const char* name : names) {
      if (is_text(name)) return name;
    }
    return "";
  }

  std::string advice() const {
    if (find("text") != nullptr && find("messages") != nullptr) {
      return "choose one with --columns messages=messages or --columns "
             "text=text";
    }
    for (const JsonMember& member : members_) {
      if (is_list_with(member.key, "from")) return "add --form sharegpt";
    }
    for (const JsonMember& member : members_) {
      if (member.key != "prompt" && is_list_with(member.key, "role")) {
        return fmt::format("add --columns messages={}", member.key);
      }
    }
    if (is_text("instruction") && is_text("output")) {
      return "add --form alpaca, or --columns "
             "prompt=instruction+input,completion=output";
    }
    const std::string prompt = first_text(
        {"prompt",
         "question",
         "instruction",
         "query",
         "input",
         "problem",
         "source"});
    const std::string answer = first_text(
        {"completion",
         "answer",
         "response",
         "output",
         "solution",
         "chosen",
         "target"});
    if (!prompt.empty() && !answer.empty() &&
        prompt + answer != "promptcompletion") {
      return fmt::format(
          "add --columns prompt={},completion={}", prompt, answer);
    }
    const std::string text =
        first_text({"content", "document", "body", "code", "article"});
    if (!text.empty()) return fmt::format("add --columns text={}", text);
    for (const JsonMember& member : members_) {
      if (!member.value.starts_with('[')) continue;
      return fmt::format(
          "if the samples are the list in '{0}', write them out: jq -c "
          "'.{0}[]' FILE > data.jsonl",
          member.key);
    }
    return "name the columns to read, such as --columns text=NAME or --columns "
           "prompt=NAME,completion=NAME";
  }

  Members members_;
};

}  // namespace

std::string form_advice(std::string_view row) { return Advice(row).text(); }

}  // namespace fettle::text
