// SPDX-License-Identifier: Apache-2.0
// The parts of a tokenizer that GGUF keys are made of.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.h"

namespace fettle::exporter {

// Numbers of the kinds of tokens.
enum class TokenKind : std::int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct Vocabulary {
  std::vector<std::string> tokens;  // by id, one a row of the embeddings
  std::vector<TokenKind> kinds;
};

// The tokens of a tokenizer.json for a model of `rows` embeddings. Throws
// UserError on tokens beyond them, and on added tokens with options that GGUF
// has no place for.
Vocabulary read_vocabulary(const JsonObject& tokenizer, std::int64_t rows);

// The merges as "LEFT RIGHT", in the order of their ranks.
std::vector<std::string> read_merges(const JsonObject& model);

// llama.cpp's name for how a byte-level tokenizer cuts text into words.
std::string word_rule(const JsonObject& tokenizer);

// Scores by which SentencePiece's algorithm merges as the ranks do: the higher,
// the earlier. Throws UserError where it would merge otherwise.
std::vector<float> merge_scores(
    const JsonObject& tokenizer, const Vocabulary& vocabulary);

}  // namespace fettle::exporter
