// SPDX-License-Identifier: Apache-2.0
// An endless stream of packed training sequences from several files. The same
// files, weights and seed give the same stream, and a position can be saved and
// restored. All token ids and labels stay in memory, 8 bytes a token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "text/sample.h"

namespace fettle::text {

struct WeightedSamples {
  std::string name;     // in errors and in saved states
  double weight = 1.0;  // share of the samples drawn, relative to the others
  std::vector<Sample> samples;
};

// T tokens of one or more documents.
struct PackedSequence {
  std::vector<std::int32_t> ids;     // (T)
  std::vector<std::int32_t> labels;  // (T), not shifted; kMasked at each start
  // Where documents begin, ascending, the first at 0. Attention and positions
  // start anew at each.
  std::vector<std::int64_t> document_starts;
};

class Mixture {
 public:
  struct Options {
    std::uint64_t seed = 0;
    std::int64_t seq_len = 0;  // T of every sequence, at least 2
  };

  // Throws UserError on a sequence length below 2, and on a source in which no
  // token counts for the loss.
  Mixture(std::vector<WeightedSamples> sources, Options options);

  // The next sequence. Sources take turns so that the number of samples drawn
  // from each follows its weight as closely as it can; a source's samples come
  // in a new random order in each of its epochs. A document that doesn't fit is
  // cut and goes on in the next sequence from its last token on, so that each
  // of its tokens but the first is predicted exactly once.
  PackedSequence next();

  // The position, for restore() on a mixture of the same sources and options.
  Json state() const;
  // Throws UserError when `state` was saved from other data or another seed.
  void restore(const Json& state);

 private:
  struct Source {
    WeightedSamples data;
    std::uint64_t checksum = 0;  // of all ids and labels
    std::uint64_t drawn = 0;     // samples drawn so far
    std::vector<std::uint32_t> order;
    std::optional<std::uint64_t> order_epoch;
  };
  // The document that is being packed.
  struct Document {
    std::size_t source = 0;
    std::size_t sample = 0;
    std::size_t offset = 0;  // its next token
  };

  Document draw();
  const Sample& sample_of(const Document& document) const;
  void append(const Document& document, PackedSequence& out) const;

  std::vector<Source> sources_;
  Options options_;
  std::optional<Document> current_;
};

}  // namespace fettle::text
