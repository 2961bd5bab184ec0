// SPDX-License-Identifier: Apache-2.0
#include "text/row_form.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "core/error.h"
#include "core/json.h"
#include "text/raw_json.h"

namespace fettle::text {
namespace {

using Members = std::vector<JsonMember>;

// The keys that identify a form.
constexpr std::array<std::string_view, 6> kFormKeys = {
    "text", "messages", "prompt", "completion", "input_ids", "labels"};

// The keys of a message that say whether it is trained on.
constexpr std::array<std::string_view, 4> kTrainKeys = {
    "train", "weight", "training", "loss"};

const JsonMember* find_member(const Members& members, std::string_view key) {
  const auto found = std::ranges::find(members, key, &JsonMember::key);
  if (found == members.end() || found->value == "null") return nullptr;
  return &*found;
}

bool is_form_key(std::string_view key) {
  return std::ranges::find(kFormKeys, key) != kFormKeys.end();
}

[[noreturn]] void refuse_row(const std::string& subject, std::string why) {
  throw UserError("data", subject, why);
}

std::string string_of(const JsonMember& member, const std::string& subject) {
  if (!member.value.starts_with('"')) {
    refuse_row(
        subject,
        fmt::format(
            "'{}' must be a string, found {}",
            member.key,
            member.value.substr(0, 40)));
  }
  return Json::parse(member.value).get<std::string>();
}

std::string json_string(const std::string& text) { return Json(text).dump(); }

// Several columns as one text.
std::string joined_columns(
    const Members& members,
    const ColumnMapping& mapping,
    const std::string& subject) {
  std::string text;
  for (const std::string& column : mapping.columns) {
    const JsonMember* member = find_member(members, column);
    if (member == nullptr) continue;
    const std::string part = string_of(*member, subject);
    if (!text.empty() && !part.empty()) text += '\n';
    text += part;
  }
  return json_string(text);
}

std::string by_columns(
    std::string_view row,
    const std::vector<ColumnMapping>& mappings,
    const std::string& subject) {
  const Members members = json_members(row);
  const auto has = [&](const std::string& column) {
    return find_member(members, column) != nullptr;
  };
  const auto found = [&](const ColumnMapping& mapping) {
    return std::ranges::any_of(mapping.columns, has);
  };
  if (std::ranges::none_of(mappings, found)) return std::string(row);
  std::vector<std::string> texts;
  Members out;
  for (const ColumnMapping& mapping : mappings) {
    if (!found(mapping)) {
      if (mapping.target == "tools" || mapping.target == "labels") continue;
      refuse_row(
          subject,
          fmt::format(
              "expected the column '{}' for {}, as --columns has it, found {}",
              fmt::join(mapping.columns, "+"),
              mapping.target,
              form_advice(row)));
    }
    texts.push_back(
        mapping.columns.size() > 1
            ? joined_columns(members, mapping, subject)
            : std::string(find_member(members, mapping.columns[0])->value));
    out.push_back({mapping.target, {}});
  }
  for (std::size_t i = 0; i < out.size(); ++i) out[i].value = texts[i];
  for (const JsonMember& member : members) {
    const bool mapped =
        std::ranges::find(out, member.key, &JsonMember::key) != out.end();
    if (!mapped && !is_form_key(member.key)) out.push_back(member);
  }
  return json_object_text(out);
}

std::string message_text(std::string_view role, const std::string& content) {
  return fmt::format(
      R"({{"role": "{}", "content": {}}})", role, json_string(content));
}

// A row of messages, with the row's other keys.
std::string row_of(
    const std::vector<std::string>& messages,
    const Members& members,
    std::initializer_list<std::string_view> without) {
  const std::string list = fmt::format("[{}]", fmt::join(messages, ", "));
  Members out{{"messages", list}};
  for (const JsonMember& member : members) {
    if (!is_form_key(member.key) &&
        std::ranges::find(without, member.key) == without.end()) {
      out.push_back(member);
    }
  }
  return json_object_text(out);
}

std::string sharegpt_role(const std::string& from, const std::string& subject) {
  static const std::map<std::string, const char*> kRoles = {
      {"human", "user"},
      {"user", "user"},
      {"gpt", "assistant"},
      {"chatgpt", "assistant"},
      {"bing", "assistant"},
      {"bard", "assistant"},
      {"model", "assistant"},
      {"assistant", "assistant"},
      {"system", "system"},
      {"tool", "tool"},
      {"observation", "tool"},
      {"function_response", "tool"}};
  const auto found = kRoles.find(from);
  if (found == kRoles.end()) {
    refuse_row(
        subject,
        fmt::format(
            "expected human, gpt, system or tool as 'from', found '{}'; write "
            "such messages as OpenAI does, with role and tool_calls",
            from));
  }
  return found->second;
}

std::string sharegpt_message(
    std::string_view item, const std::string& subject) {
  if (!item.starts_with('{')) {
    refuse_row(subject, "'conversations' must be a list of objects");
  }
  Members out;
  std::vector<std::string> texts;
  texts.reserve(2);
  for (const JsonMember& member : json_members(item)) {
    if (member.key == "from" || member.key == "role") {
      texts.push_back(
          json_string(sharegpt_role(string_of(member, subject), subject)));
      out.insert(out.begin(), {"role", texts.back()});
    } else if (member.key == "value" || member.key == "content") {
      out.push_back({"content", member.value});
    } else {
      out.push_back(member);
    }
  }
  if (out.empty() || out.front().key != "role") {
    refuse_row(subject, "a message of 'conversations' has no 'from'");
  }
  return json_object_text(out);
}

std::string by_sharegpt(std::string_view row, const std::string& subject) {
  const Members members = json_members(row);
  const JsonMember* list = find_member(members, "conversations");
  if (list == nullptr) list = find_member(members, "conversation");
  if (list == nullptr) return std::string(row);
  if (!list->value.starts_with('[')) {
    refuse_row(subject, fmt::format("'{}' must be a list", list->key));
  }
  std::vector<std::string> messages;
  if (const JsonMember* system = find_member(members, "system")) {
    const std::string text = string_of(*system, subject);
    if (!text.empty()) messages.push_back(message_text("system", text));
  }
  for (const std::string_view item : json_items(list->value)) {
    messages.push_back(sharegpt_message(item, subject));
  }
  return row_of(messages, members, {list->key, "system"});
}

// Reads alpaca as other tools do for chat models: instruction and input are
// what the user says, output is the answer.
std::string by_alpaca(std::string_view row, const std::string& subject) {
  const Members members = json_members(row);
  const JsonMember* output = find_member(members, "output");
  if (find_member(members, "instruction") == nullptr || output == nullptr) {
    return std::string(row);
  }
  if (const JsonMember* history = find_member(members, "history");
      history != nullptr && !json_items(history->value).empty()) {
    refuse_row(
        subject,
        "'history' of alpaca is not read; write such conversations as "
        "messages");
  }
  std::vector<std::string> messages;
  if (const JsonMember* system = find_member(members, "system")) {
    const std::string text = string_of(*system, subject);
    if (!text.empty()) messages.push_back(message_text("system", text));
  }
  const std::string user =
      joined_columns(members, {"", {"instruction", "input"}}, subject);
  messages.push_back(
      message_text("user", Json::parse(user).get<std::string>()));
  messages.push_back(message_text("assistant", string_of(*output, subject)));
  return row_of(
      messages,
      members,
      {"instruction", "input", "output", "system", "history"});
}

}  // namespace

NamedForm parse_named_form(std::string_view name) {
  if (name.empty()) return NamedForm::kOwn;
  if (name == "sharegpt") return NamedForm::kShareGpt;
  if (name == "alpaca") return NamedForm::kAlpaca;
  throw UsageError(
      "data",
      "--form",
      fmt::format("expected sharegpt or alpaca, found '{}'", name));
}

std::vector<ColumnMapping> parse_columns(std::string_view text) {
  std::vector<ColumnMapping> mappings;
  const auto refuse = [&](std::string_view why) {
    throw UsageError(
        "data",
        "--columns",
        fmt::format(
            "{}, found '{}'; write such as prompt=question,completion=answer",
            why,
            text));
  };
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    const std::size_t equals = item.find('=');
    if (equals == std::string_view::npos || equals + 1 == item.size()) {
      refuse("expected FIELD=COLUMN");
    }
    ColumnMapping mapping{std::string(item.substr(0, equals)), {}};
    if (!is_form_key(mapping.target) && mapping.target != "tools") {
      refuse(
          "expected text, messages, prompt, completion, input_ids, labels or "
          "tools before '='");
    }
    std::string_view columns = item.substr(equals + 1);
    while (!columns.empty()) {
      const std::size_t plus = std::min(columns.find('+'), columns.size());
      mapping.columns.emplace_back(columns.substr(0, plus));
      columns.remove_prefix(std::min(plus + 1, columns.size()));
    }
    mappings.push_back(std::move(mapping));
  }
  return mappings;
}

std::string mapped_row(
    std::string_view row, const RowForm& form, const std::string& subject) {
  if (!form.columns.empty()) return by_columns(row, form.columns, subject);
  if (form.form == NamedForm::kShareGpt) return by_sharegpt(row, subject);
  if (form.form == NamedForm::kAlpaca) return by_alpaca(row, subject);
  return std::string(row);
}

std::string conversation_row(std::string_view row, const std::string& subject) {
  const Members members = json_members(row);
  std::vector<std::string> messages;
  for (const char* key : {"prompt", "completion"}) {
    const JsonMember* list = find_member(members, key);
    if (list == nullptr || !list->value.starts_with('[')) {
      refuse_row(
          subject,
          "expected prompt and completion both as strings or both as lists of "
          "messages");
    }
    for (const std::string_view item : json_items(list->value)) {
      if (!item.starts_with('{')) {
        refuse_row(
            subject, fmt::format("'{}' must be a list of messages", key));
      }
      Members message = json_members(item);
      if (std::string_view(key) == "prompt") {
        std::erase_if(message, [](const JsonMember& member) {
          return std::ranges::find(kTrainKeys, member.key) != kTrainKeys.end();
        });
        const JsonMember* role = find_member(message, "role");
        if (role != nullptr && role->value == "\"assistant\"") {
          message.push_back({"train", "false"});
        }
      }
      messages.push_back(json_object_text(message));
    }
  }
  return row_of(messages, members, {});
}

}  // namespace fettle::text
