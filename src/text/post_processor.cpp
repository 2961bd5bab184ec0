// SPDX-License-Identifier: Apache-2.0
#include "text/post_processor.h"

#include <fmt/format.h>

#include "core/error.h"
#include "text/bpe_model.h"

namespace fettle::text {
namespace {

std::vector<std::int32_t> read_special(
    const JsonObject& component, const std::string& name) {
  const JsonObject tokens = component.object("special_tokens");
  const JsonObject token = tokens.object(name);
  const Json& list = token.at("ids");
  if (!list.is_array()) token.refuse("ids", "must be a list");
  std::vector<std::int32_t> ids;
  for (const Json& id : list) ids.push_back(read_token_id(id, token.subject()));
  return ids;
}

PostProcessor read_template(const JsonObject& component) {
  const Json& pieces = component.at("single");
  if (!pieces.is_array()) component.refuse("single", "must be a list");
  PostProcessor result;
  int sequences = 0;
  for (const Json& item : pieces) {
    const JsonObject piece(item, "tokenizer", component.subject());
    if (piece.has("SpecialToken")) {
      const auto ids =
          read_special(component, piece.object("SpecialToken").string("id"));
      auto& side = sequences == 0 ? result.before : result.after;
      side.insert(side.end(), ids.begin(), ids.end());
    } else if (piece.object("Sequence").string("id") == "A") {
      ++sequences;
    } else {
      component.refuse("single", "names a second text");
    }
  }
  if (sequences != 1) component.refuse("single", "must hold text A once");
  return result;
}

// ["[CLS]", 101]
std::int32_t read_named_id(const JsonObject& component, std::string_view key) {
  const Json& pair = component.at(key);
  if (!pair.is_array() || pair.size() != 2) {
    component.refuse(key, "must be a token and its id");
  }
  return read_token_id(pair[1], component.subject());
}

PostProcessor read_sequence(
    const JsonObject& component, const std::string& subject) {
  const Json& list = component.at("processors");
  if (!list.is_array()) component.refuse("processors", "must be a list");
  PostProcessor result;
  for (const Json& item : list) {
    PostProcessor step = read_post_processor(item, subject);
    step.before.insert(
        step.before.end(), result.before.begin(), result.before.end());
    result.before = std::move(step.before);
    result.after.insert(
        result.after.end(), step.after.begin(), step.after.end());
  }
  return result;
}

}  // namespace

PostProcessor read_post_processor(
    const Json& value, const std::string& subject) {
  if (value.is_null()) return {};
  const JsonObject component(value, "tokenizer", subject + " 'post_processor'");
  const std::string type = component.string("type");
  if (type == "ByteLevel") return {};
  if (type == "TemplateProcessing") return read_template(component);
  if (type == "BertProcessing" || type == "RobertaProcessing") {
    return {
        {read_named_id(component, "cls")}, {read_named_id(component, "sep")}};
  }
  if (type == "Sequence") return read_sequence(component, subject);
  component.refuse("type", fmt::format("'{}' is not supported", type));
}

}  // namespace fettle::text
