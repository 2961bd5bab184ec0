// SPDX-License-Identifier: Apache-2.0
#include "text/decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "core/error.h"
#include "text/byte_alphabet.h"
#include "text/metaspace.h"
#include "text/pattern.h"
#include "text/utf8.h"

namespace fettle::text {
namespace {

using Pieces = std::vector<std::string>;

std::string joined(const Pieces& pieces) {
  std::string out;
  for (const std::string& piece : pieces) out += piece;
  return out;
}

class SpaceBetween : public Decoder {
 public:
  void apply(Pieces& pieces) const override {
    for (std::size_t i = 1; i < pieces.size(); ++i) pieces[i].insert(0, " ");
  }
};

class Fuse : public Decoder {
 public:
  void apply(Pieces& pieces) const override { pieces = {joined(pieces)}; }
};

class ByteLevelDecoder : public Decoder {
 public:
  void apply(Pieces& pieces) const override {
    std::string bytes;
    for (const std::string& piece : pieces) {
      // A token with any other character stands for itself.
      bytes += spelled_bytes(piece).value_or(piece);
    }
    pieces = {repair_utf8(bytes)};
  }

 private:
  static std::optional<std::string> spelled_bytes(const std::string& piece) {
    std::string bytes;
    for (std::size_t at = 0; at < piece.size();) {
      const char32_t c = decode_at(piece, at);
      at += utf8_length(piece[at]);
      if (c >= kByteAlphabetEnd || kAlphabetBytes[c] < 0) return std::nullopt;
      bytes += static_cast<char>(kAlphabetBytes[c]);
    }
    return bytes;
  }
};

class ByteFallback : public Decoder {
 public:
  void apply(Pieces& pieces) const override {
    Pieces out;
    std::string bytes;
    const auto flush = [&] {
      if (is_utf8(bytes)) {
        if (!bytes.empty()) out.push_back(bytes);
      } else {
        out.insert(out.end(), bytes.size(), "\xef\xbf\xbd");
      }
      bytes.clear();
    };
    for (std::string& piece : pieces) {
      if (const auto byte = byte_of(piece)) {
        bytes += *byte;
      } else {
        flush();
        out.push_back(std::move(piece));
      }
    }
    flush();
    pieces = std::move(out);
  }

 private:
  // "<0x0A>"
  static std::optional<char> byte_of(const std::string& piece) {
    if (piece.size() != 6 || piece.rfind("<0x", 0) != 0 || piece[5] != '>') {
      return std::nullopt;
    }
    const std::string digits = piece.substr(3, 2);
    if (digits.find_first_not_of("0123456789abcdefABCDEF") !=
        std::string::npos) {
      return std::nullopt;
    }
    return static_cast<char>(std::stoi(digits, nullptr, 16));
  }
};

class ReplaceDecoder : public Decoder {
 public:
  ReplaceDecoder(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}

  void apply(Pieces& pieces) const override {
    Regex::Matcher matcher(pattern_);
    for (std::string& piece : pieces) {
      const std::string_view text = piece;
      std::string out;
      std::size_t copied = 0;
      matcher.for_each(text, [&](Span match) {
        out.append(text.substr(copied, match.begin - copied));
        out.append(content_);
        copied = match.end;
      });
      out.append(text.substr(copied));
      piece = std::move(out);
    }
  }

 private:
  Regex pattern_;
  std::string content_;
};

class StripDecoder : public Decoder {
 public:
  struct Options {
    std::string content;  // one character
    std::int64_t start;   // at most so many are cut on the left
    std::int64_t stop;    // and on the right
  };

  explicit StripDecoder(Options options) : options_(std::move(options)) {}

  void apply(Pieces& pieces) const override {
    for (std::string& piece : pieces) {
      const std::string& content = options_.content;
      std::string_view text = piece;
      for (std::int64_t i = 0; i < options_.start; ++i) {
        if (text.substr(0, content.size()) != content) break;
        text.remove_prefix(content.size());
      }
      for (std::int64_t i = 0; i < options_.stop; ++i) {
        if (text.size() < content.size() ||
            text.substr(text.size() - content.size()) != content) {
          break;
        }
        text.remove_suffix(content.size());
      }
      piece = std::string(text);
    }
  }

 private:
  Options options_;
};

class MetaspaceDecoder : public Decoder {
 public:
  explicit MetaspaceDecoder(MetaspaceOptions options)
      : options_(std::move(options)) {}

  void apply(Pieces& pieces) const override {
    const bool prepended = options_.prepend != PrependScheme::kNever;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      const std::string_view space = i == 0 && prepended ? "" : " ";
      std::string& piece = pieces[i];
      for (std::size_t at = piece.find(options_.replacement);
           at != std::string::npos;
           at = piece.find(options_.replacement, at + space.size())) {
        piece.replace(at, options_.replacement.size(), space);
      }
    }
  }

 private:
  MetaspaceOptions options_;
};

class DecoderSequence : public Decoder {
 public:
  explicit DecoderSequence(std::vector<std::unique_ptr<Decoder>> steps)
      : steps_(std::move(steps)) {}

  void apply(Pieces& pieces) const override {
    for (const auto& step : steps_) step->apply(pieces);
  }

 private:
  std::vector<std::unique_ptr<Decoder>> steps_;
};

std::unique_ptr<Decoder> make_strip(const JsonObject& component) {
  StripDecoder::Options options{
      component.string("content"),
      component.integer_or("start", 0),
      component.integer_or("stop", 0)};
  if (options.content.empty() ||
      options.content.size() != utf8_length(options.content[0])) {
    component.refuse("content", "must be one character");
  }
  return std::make_unique<StripDecoder>(std::move(options));
}

std::unique_ptr<Decoder> make_replace_decoder(const JsonObject& component) {
  std::string content = component.string("content");
  if (is_regex_pattern(component, "pattern") &&
      content.find('$') != std::string::npos) {
    component.refuse("content", "refers to a group of the pattern by '$'");
  }
  return std::make_unique<ReplaceDecoder>(
      read_pattern(component, "pattern"), std::move(content));
}

std::unique_ptr<Decoder> make_decoder_sequence(
    const JsonObject& component, const std::string& subject) {
  const Json& list = component.at("decoders");
  if (!list.is_array()) component.refuse("decoders", "must be a list");
  std::vector<std::unique_ptr<Decoder>> steps;
  for (const Json& item : list) {
    // Inside of a list there is no default.
    if (item.is_null()) component.refuse("decoders", "holds null");
    steps.push_back(make_decoder(item, subject));
  }
  return std::make_unique<DecoderSequence>(std::move(steps));
}

}  // namespace

std::unique_ptr<Decoder> make_decoder(
    const Json& value, const std::string& subject) {
  if (value.is_null()) return std::make_unique<SpaceBetween>();
  const JsonObject component(value, "tokenizer", subject + " 'decoder'");
  const std::string type = component.string("type");
  if (type == "ByteLevel") return std::make_unique<ByteLevelDecoder>();
  if (type == "ByteFallback") return std::make_unique<ByteFallback>();
  if (type == "Fuse") return std::make_unique<Fuse>();
  if (type == "Strip") return make_strip(component);
  if (type == "Replace") return make_replace_decoder(component);
  if (type == "Metaspace") {
    return std::make_unique<MetaspaceDecoder>(read_metaspace(component));
  }
  if (type == "Sequence") return make_decoder_sequence(component, subject);
  component.refuse("type", fmt::format("'{}' is not supported", type));
}

}  // namespace fettle::text
