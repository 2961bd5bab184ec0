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
#include "text/source_counts.h"

namespace fettle::text {

struct WeightedSamples {
  std::string name;     // in errors and in saved states
  double weight = 1.0;  // share of the samples drawn, relative to the others
  std::vector<Sample> samples;
};

// At most T tokens of one or more documents.
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
  // token counts for the loss. Samples to keep whole that are longer than a
  // sequence lose their end.
  Mixture(std::vector<WeightedSamples> sources, Options options);

  // The next sequence. Sources take turns so that the number of samples drawn
  // from each follows its weight as closely as it can; a source's samples come
  // in a new random order in each of its epochs. Samples to keep whole are
  // fitted in, best fit first, out of a few that were drawn ahead; a sequence
  // that none of them fits into any more stays shorter. Other documents fill
  // what is left: one that doesn't fit is cut and goes on in the next sequence
  // from its last token on, so that each of its tokens but the first is
  // predicted exactly once.
  PackedSequence next();

  std::vector<SourceCounts> counts() const;
  // This many sequences in a row hold every sample of one of the sources,
  // wherever they begin.
  std::size_t sequences_at_most() const;

  std::size_t samples() const;  // of all sources
  // Drawn so far, each as often as it was.
  std::uint64_t samples_drawn() const;

  // The position, for restore() on a mixture of the same sources and options.
  Json state() const;
  // Throws UserError when `state` was saved from other data or another seed.
  void restore(const Json& state);

 private:
  struct Source {
    WeightedSamples data;
    SourceCounts counts;
    std::uint64_t checksum = 0;  // of all ids and labels
    std::uint64_t drawn = 0;     // samples drawn so far
    std::vector<std::uint32_t> order;
    std::optional<std::uint64_t> order_epoch;
  };
  // A document that was drawn, or the rest of it.
  struct Document {
    std::size_t source = 0;
    std::size_t sample = 0;
    std::size_t offset = 0;  // its next token
  };

  using Documents = std::vector<Document>;

  void add_source(WeightedSamples data);
  Document draw();
  const Sample& sample_of(const Document& document) const;
  std::size_t size_of(const Document& document) const;
  Documents::iterator best_fit(std::size_t room);
  std::size_t append(const Document& document, PackedSequence& out) const;
  Document read_document(const Json& saved) const;

  std::vector<Source> sources_;
  Options options_;
  std::size_t drawn_ahead_ = 1;
  Documents waiting_;  // oldest first
};

}  // namespace fettle::text
