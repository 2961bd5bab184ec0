// SPDX-License-Identifier: Apache-2.0
#include "text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/json.h"
#include "text/added_tokens.h"
#include "text/bpe_model.h"
#include "text/decoder.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer_files.h"
#include "text/utf8.h"
#include "text/word_cache.h"

namespace fettle::text {
namespace {

Json component(const JsonObject& file, std::string_view key) {
  return file.has(key) ? file.at(key) : Json();
}

}  // namespace

struct Tokenizer::Parts {
  explicit Parts(const JsonObject& file)
      : normalizer(
            make_normalizer(component(file, "normalizer"), file.subject())),
        pre_tokenizer(make_pre_tokenizer(
            component(file, "pre_tokenizer"), file.subject())),
        model(file.object("model")),
        added(file, model, *normalizer),
        post_processor(read_post_processor(
            component(file, "post_processor"), file.subject())),
        decoder(make_decoder(component(file, "decoder"), file.subject())),
        id_end(std::max(model.id_end(), added.id_end())) {
    for (const auto* side : {&post_processor.before, &post_processor.after}) {
      for (const std::int32_t id : *side) check_known(id, file.subject());
    }
  }

  void check_known(std::int32_t id, const std::string& subject) const {
    if (added.by_id(id) == nullptr && model.token(id) == nullptr) {
      throw UserError(
          "tokenizer",
          subject + " 'post_processor'",
          fmt::format("adds id {}, which no token has", id));
    }
  }

  // Appends the tokens of a stretch of text without raw added tokens.
  void encode_part(
      NormalizedText part,
      WordCache& cache,
      std::vector<std::int32_t>& out) const {
    normalizer->apply(part);
    const std::string_view text = part.text;
    for (const TextPart& piece : added.split_normalized(text)) {
      if (piece.token >= 0) {
        out.push_back(piece.token);
        continue;
      }
      Words words;
      words.text =
          text.substr(piece.span.begin, piece.span.end - piece.span.begin);
      words.spans = {{0, words.text.size()}};
      words.at_start = part.at_start && piece.span.begin == 0;
      pre_tokenizer->apply(words);
      for (const Span span : words.spans) {
        cache.append(
            words.view(span),
            out,
            [this](std::string_view word, std::vector<std::int32_t>& ids) {
              model.encode_word(word, ids);
            });
      }
    }
  }

  const std::string* spelling(std::int32_t id) const {
    const AddedToken* token = added.by_id(id);
    return token != nullptr ? &token->spelling : model.token(id);
  }

  std::unique_ptr<Normalizer> normalizer;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  BpeModel model;
  AddedTokens added;
  PostProcessor post_processor;
  std::unique_ptr<Decoder> decoder;
  std::int64_t id_end;
};

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts)
    : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

namespace {

JsonObject root_of(const Json& json, const std::string& subject) {
  return JsonObject(json, "tokenizer", subject);
}

}  // namespace

Tokenizer Tokenizer::load(const std::filesystem::path& model_folder) {
  require_tokenizer(model_folder);
  const std::filesystem::path path = model_folder / "tokenizer.json";
  const Json json = read_json(path, "tokenizer");
  return Tokenizer(std::make_unique<const Parts>(root_of(json, path.string())));
}

Tokenizer Tokenizer::parse(std::string_view text, const std::string& subject) {
  const Json json = parse_json(text, "tokenizer", subject);
  return Tokenizer(std::make_unique<const Parts>(root_of(json, subject)));
}

std::vector<std::int32_t> Tokenizer::encode(
    std::string_view bytes, EncodeOptions options) const {
  std::vector<EncodedStretch> stretches;
  return encode(repair_utf8(bytes), options, stretches);
}

std::vector<std::int32_t> Tokenizer::encode(
    std::string_view text,
    EncodeOptions options,
    std::vector<EncodedStretch>& stretches) const {
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  const PostProcessor& extra = parts_->post_processor;
  if (options.add_special_tokens) {
    ids.insert(ids.end(), extra.before.begin(), extra.before.end());
  }
  WordCache cache(text.size());
  stretches.clear();
  for (const TextPart& part : parts_->added.split_raw(text)) {
    if (part.token >= 0) {
      ids.push_back(part.token);
    } else {
      const std::string_view piece =
          text.substr(part.span.begin, part.span.end - part.span.begin);
      parts_->encode_part(
          {std::string(piece), options.at_start && part.span.begin == 0},
          cache,
          ids);
    }
    stretches.push_back({part.span.end, ids.size()});
  }
  if (options.add_special_tokens) {
    ids.insert(ids.end(), extra.after.begin(), extra.after.end());
  }
  return ids;
}

std::string Tokenizer::decode(
    std::span<const std::int32_t> ids, DecodeOptions options) const {
  std::vector<std::string> pieces;
  pieces.reserve(ids.size());
  for (const std::int32_t id : ids) {
    const AddedToken* token = parts_->added.by_id(id);
    if (token != nullptr && token->left_out && options.skip_special_tokens) {
      continue;
    }
    if (const std::string* spelling = parts_->spelling(id)) {
      pieces.push_back(*spelling);
    }
  }
  parts_->decoder->apply(pieces);
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

std::span<const std::int32_t> Tokenizer::ids_before() const {
  return parts_->post_processor.before;
}

std::span<const std::int32_t> Tokenizer::ids_after() const {
  return parts_->post_processor.after;
}

std::int64_t Tokenizer::vocab_size() const { return parts_->id_end; }

std::optional<std::int32_t> Tokenizer::token_id(std::string_view token) const {
  if (const AddedToken* added = parts_->added.by_content(token)) {
    return added->id;
  }
  return parts_->model.token_id(token);
}

}  // namespace fettle::text
