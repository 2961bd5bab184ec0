// SPDX-License-Identifier: Apache-2.0
#include "export/gguf/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "core/error.h"
#include "export/gguf/gguf_vocabulary.h"
#include "io/file.h"
#include "text/tokenizer.h"

namespace fettle::exporter {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSpace = "\xe2\x96\x81";  // SentencePiece's

std::string read_text(const fs::path& path) {
  const auto file = io::open_file(path);
  std::string text(file->size(), '\0');
  file->read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

class TokenizerKeys {
 public:
  TokenizerKeys(
      const fs::path& folder,
      const model::ModelConfig& config,
      const ExportOptions& options)
      : folder_(folder),
        config_(config),
        options_(options),
        json_(read_json(folder / "tokenizer.json", "export")),
        tokenizer_(json_, "export", (folder / "tokenizer.json").string()),
        loaded_(text::Tokenizer::load(folder)),
        vocabulary_(read_vocabulary(tokenizer_, config.vocab_size)) {}

  GgufKeys make() {
    const JsonObject model = tokenizer_.object("model");
    const bool falls_back = model.boolean_or("byte_fallback", false);
    if (falls_back && only_replaces_spaces()) {
      put("model", std::string("gemma4"));
      put("add_space_prefix", false);
      put("merges", read_merges(model));
      mark_bytes(model);
    } else if (falls_back) {
      add_sentence_pieces(model);
    } else {
      put("model", std::string("gpt2"));
      put("pre", word_rule(tokenizer_));
      put("merges", read_merges(model));
    }
    put("tokens", vocabulary_.tokens);
    std::vector<std::int32_t> kinds;
    for (const TokenKind kind : vocabulary_.kinds) {
      kinds.push_back(static_cast<std::int32_t>(kind));
    }
    put("token_type", std::move(kinds));
    add_special_tokens();
    add_template();
    return std::move(keys_);
  }

 private:
  void put(std::string_view key, GgufValue value) {
    keys_.emplace_back(fmt::format("tokenizer.ggml.{}", key), std::move(value));
  }

  void put_id(std::string_view key, std::int64_t id) {
    if (id < 0 || id >= config_.vocab_size) return;
    put(fmt::format("{}_token_id", key), static_cast<std::uint32_t>(id));
  }

  static Json replaced_spaces() {
    return {
        {"type", "Replace"},
        {"pattern", {{"String", " "}}},
        {"content", kSpace}};
  }

  // As Gemma's tokenizer does, which llama.cpp knows by its name: merges by
  // their ranks, of text that is not cut into words.
  bool only_replaces_spaces() const {
    return tokenizer_.has("normalizer") &&
           tokenizer_.at("normalizer") == replaced_spaces();
  }

  void add_sentence_pieces(const JsonObject& model) {
    check_spaces();
    put("model", std::string("llama"));
    put("add_space_prefix", true);
    mark_bytes(model);
    put("scores", merge_scores(tokenizer_, vocabulary_));
  }

  void mark_bytes(const JsonObject& model) {
    for (int byte = 0; byte < 256; ++byte) {
      const std::string token = fmt::format("<0x{:02X}>", byte);
      const auto id = loaded_.token_id(token);
      if (!id) {
        tokenizer_.refuse("model", fmt::format("lacks the byte {}", token));
      }
      vocabulary_.kinds[*id] = TokenKind::kByte;
    }
    if (model.has("unk_token")) {
      if (const auto id = loaded_.token_id(model.string("unk_token"))) {
        vocabulary_.kinds[*id] = TokenKind::kUnknown;
        put_id("unknown", *id);
      }
    }
  }

  // llama.cpp puts a space before every stretch of text between special
  // tokens.
  void check_spaces() const {
    const Json replace = replaced_spaces();
    const Json wanted = {
        {"type", "Sequence"},
        {"normalizers", {{{"type", "Prepend"}, {"prepend", kSpace}}, replace}}};
    const bool same = tokenizer_.has("normalizer") &&
                      tokenizer_.at("normalizer") == wanted &&
                      !tokenizer_.has("pre_tokenizer");
    const bool alike =
        !tokenizer_.has("normalizer") && tokenizer_.has("pre_tokenizer") &&
        tokenizer_.object("pre_tokenizer").string("type") == "Metaspace" &&
        tokenizer_.object("pre_tokenizer").string_or("replacement", "") ==
            kSpace;
    if (same || (alike && options_.nearest)) return;
    tokenizer_.refuse(
        "normalizer",
        alike ? "is Metaspace, where llama.cpp puts a space before every "
                "stretch of text between special tokens: export with "
                "--nearest if a token more there is no harm"
              : "treats spaces in a way that llama.cpp does not know");
  }

  void add_special_tokens() {
    const JsonObject config(config_.json, "export", "config.json");
    const bool whole = config.has("bos_token_id") &&
                       config.at("bos_token_id").is_number_integer();
    const std::int64_t bos = whole ? config.integer("bos_token_id") : -1;
    put_id("bos", bos);
    const auto& ends = config_.eos_token_ids;
    if (ends.empty()) {
      config.refuse(
          "eos_token_id", "is missing; llama.cpp would end at any token");
    }
    put_id("eos", ends[0]);
    if (ends.size() > 1) put_id("eot", ends[1]);
    if (config.has("pad_token_id")) {
      put_id("padding", config.integer("pad_token_id"));
    }
    put("add_bos_token", adds("begins", loaded_.ids_before(), bos));
    put("add_eos_token", adds("ends", loaded_.ids_after(), ends[0]));
  }

  bool adds(
      std::string_view where,
      std::span<const std::int32_t> ids,
      std::int64_t id) const {
    if (ids.empty()) return false;
    if (ids.size() == 1 && ids[0] == id) return true;
    tokenizer_.refuse(
        "post_processor",
        fmt::format(
            "{} every text by other tokens than config.json's special one",
            where));
  }

  void add_template() {
    constexpr const char* kKey = "tokenizer.chat_template";
    const fs::path own = folder_ / "chat_template.jinja";
    if (fs::exists(own)) {
      keys_.emplace_back(kKey, read_text(own));
      return;
    }
    const fs::path path = folder_ / "tokenizer_config.json";
    if (!fs::exists(path)) return;
    const Json json = read_json(path, "export");
    if (json.contains("chat_template") && json["chat_template"].is_string()) {
      keys_.emplace_back(kKey, json["chat_template"].get<std::string>());
    }
  }

  const fs::path& folder_;
  const model::ModelConfig& config_;
  const ExportOptions& options_;
  Json json_;
  JsonObject tokenizer_;
  text::Tokenizer loaded_;
  Vocabulary vocabulary_;
  GgufKeys keys_;
};

}  // namespace

GgufKeys gguf_tokenizer_keys(
    const fs::path& folder,
    const model::ModelConfig& config,
    const ExportOptions& options) {
  return TokenizerKeys(folder, config, options).make();
}

}  // namespace fettle::exporter
