// SPDX-License-Identifier: Apache-2.0
// Tokens as text that is handed out as it is made: only whole characters, and
// nothing that may become a stop string.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer.h"

namespace fettle::decode {

class TextStream {
 public:
  // Keeps a reference to the tokenizer. Empty stop strings are none.
  TextStream(const text::Tokenizer& tokenizer, std::vector<std::string> stops);

  // What has become certain with this token. Nothing comes after a stop string,
  // which is left out.
  std::string add(std::int32_t id);
  // What was held back, of which nothing else will come.
  std::string finish();

  bool stopped() const { return stopped_; }

 private:
  std::string take_certain();

  const text::Tokenizer& tokenizer_;
  std::vector<std::string> stops_;
  // Tokens from the last border that text was known to go over; those before
  // `decoded_` are in the text already.
  std::vector<std::int32_t> tail_;
  std::size_t decoded_ = 0;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace fettle::decode
