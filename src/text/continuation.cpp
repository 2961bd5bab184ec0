// SPDX-License-Identifier: Apache-2.0
#include "text/continuation.h"

#include <fmt/format.h>

#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "text/python_strings.h"

namespace fettle::text {
namespace {

using TokenIds = std::vector<std::int32_t>;

// A token's text: a string, or an object that holds it as its content.
std::string token_text(const Json& config, const char* key) {
  const auto found = config.find(key);
  if (found == config.end()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_object()) return "";
  const auto content = found->find("content");
  return content != found->end() && content->is_string()
             ? content->get<std::string>()
             : "";
}

}  // namespace

std::optional<PrefixToken> prefix_token(
    const std::filesystem::path& model_folder, const Tokenizer& tokenizer) {
  const auto file = model_folder / "tokenizer_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return std::nullopt;
  const Json config = read_json(file, "tokenizer");
  if (!config.is_object()) return std::nullopt;
  for (const char* key : {"bos_token", "eos_token"}) {
    const std::string text = token_text(config, key);
    if (text.empty()) continue;
    const auto id = tokenizer.token_id(text);
    if (!id) {
      throw UserError(
          "tokenizer",
          file.string(),
          fmt::format(
              "{} is '{}', which tokenizer.json does not have", key, text));
    }
    return PrefixToken{*id, text};
  }
  return std::nullopt;
}

PairEncoder::PairEncoder(
    const Tokenizer& tokenizer, std::optional<PrefixToken> prefix)
    : tokenizer_(tokenizer), prefix_(std::move(prefix)) {}

// What the post-processor puts behind a text would part the two.
TokenIds PairEncoder::encode(std::string_view text) const {
  const bool begins = prefix_ && text.starts_with(prefix_->text);
  TokenIds ids = tokenizer_.encode(text, {.add_special_tokens = !begins});
  if (!begins) ids.resize(ids.size() - tokenizer_.ids_after().size());
  return ids;
}

EncodedPair PairEncoder::without_context(
    std::string_view continuation, const std::string& subject) const {
  if (!prefix_) {
    throw UserError(
        "choices",
        subject,
        "has no context, and tokenizer_config.json names neither a bos_token "
        "nor an eos_token that could stand for one");
  }
  TokenIds ids = tokenizer_.encode(continuation, {.add_special_tokens = false});
  if (ids.empty() || ids.front() != prefix_->id) {
    ids.insert(ids.begin(), prefix_->id);
  }
  const std::size_t own = ids.size() - 1;
  return {std::move(ids), own};
}

EncodedPair PairEncoder::encode(
    std::string_view context,
    std::string_view continuation,
    const std::string& subject) const {
  const std::size_t end = end_without_space(context);
  const std::string moved =
      std::string(context.substr(end)) + std::string(continuation);
  context = context.substr(0, end);
  EncodedPair pair;
  if (context.empty()) {
    pair = without_context(moved, subject);
  } else {
    pair.ids = encode(context);
    const TokenIds whole = encode(std::string(context) + moved);
    if (whole.size() > pair.ids.size()) {
      pair.continuation = whole.size() - pair.ids.size();
      pair.ids.insert(
          pair.ids.end(),
          whole.end() - static_cast<std::ptrdiff_t>(pair.continuation),
          whole.end());
    }
  }
  if (pair.continuation == 0 || pair.ids.size() == pair.continuation) {
    throw UserError(
        "choices",
        subject,
        fmt::format(
            "the choice '{}' adds no token to its context", continuation));
  }
  return pair;
}

}  // namespace fettle::text
