// SPDX-License-Identifier: Apache-2.0
// A model's tokenizer, read from its tokenizer.json: equal to the `tokenizers`
// package on every text, or refused by name at load. Immutable after load: any
// number of threads may use one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fettle::text {

struct EncodeOptions {
  // Add what the post-processor puts before and after a text.
  bool add_special_tokens = true;
  // The text is the begin of the input, before which some models put a space.
  bool at_start = true;
};

// Where a stretch of an encoded text ends. Stretches are added tokens such as
// <|im_end|> and the text between them; each is encoded by itself.
struct EncodedStretch {
  std::size_t byte_end;   // in the text
  std::size_t token_end;  // in its ids
};

struct DecodeOptions {
  // Leave out tokens marked as special.
  bool skip_special_tokens = true;
};

class Tokenizer {
 public:
  // Reads `model_folder`/tokenizer.json. The file's "truncation" and "padding"
  // are not applied. Throws UserError when the file is missing, malformed,
  // contradicts itself, or has a component that is not supported.
  static Tokenizer load(const std::filesystem::path& model_folder);

  // Reads the text of a tokenizer.json; `subject` names it in errors.
  static Tokenizer parse(std::string_view json, const std::string& subject);

  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // The tokens of a text. Tokens such as <|im_end|> are found inside the text.
  // Ill-formed UTF-8 is read as Python's errors="replace" reads it.
  std::vector<std::int32_t> encode(
      std::string_view text, EncodeOptions options = {}) const;

  // The tokens of well-formed UTF-8; `stretches` becomes those of the text.
  std::vector<std::int32_t> encode(
      std::string_view text,
      EncodeOptions options,
      std::vector<EncodedStretch>& stretches) const;

  // The text of tokens. Ids without a token are left out.
  std::string decode(
      std::span<const std::int32_t> ids, DecodeOptions options = {}) const;

  // What the post-processor puts before and after every text.
  std::span<const std::int32_t> ids_before() const;
  std::span<const std::int32_t> ids_after() const;

  // Largest id + 1. A model may have more rows than that.
  std::int64_t vocab_size() const;

  // The id of a token by its spelling in the file, added tokens first.
  std::optional<std::int32_t> token_id(std::string_view token) const;

 private:
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);

  std::unique_ptr<const Parts> parts_;
};

}  // namespace fettle::text
