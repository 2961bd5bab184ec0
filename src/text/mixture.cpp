// SPDX-License-Identifier: Apache-2.0
#include "text/mixture.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/rng.h"

namespace fettle::text {
namespace {

// FNV-1a (Fowler, Noll and Vo) over 32-bit words.
std::uint64_t checksum_of(const std::vector<Sample>& samples) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&](std::uint32_t word) {
    hash = (hash ^ word) * 0x100000001b3u;
  };
  for (const Sample& sample : samples) {
    for (const std::int32_t id : sample.ids) {
      add(static_cast<std::uint32_t>(id));
    }
    for (const std::int32_t id : sample.labels) {
      add(static_cast<std::uint32_t>(id));
    }
    add(static_cast<std::uint32_t>(sample.ids.size()));
  }
  return hash;
}

// Documents to choose the best fit from. Of 200 conversations of 132 tokens on
// average, sequences of 512 and 2,048 tokens leave 5.0 and 1.2 % of their
// places empty; out of 8 ahead it would be 7.8 and 1.5 %.
constexpr std::size_t kDrawnAhead = 64;

// Cuts what is too long, leaves out what teaches nothing, and counts both.
SourceCounts prepare(WeightedSamples& data, std::int64_t seq_len) {
  SourceCounts counts;
  counts.name = data.name;
  counts.weight = data.weight;
  const auto length = static_cast<std::size_t>(seq_len);
  std::erase_if(data.samples, [&](Sample& sample) {
    const bool cut = sample.whole && sample.ids.size() > length;
    const std::int64_t lost = cut ? scored_from(sample, length) : 0;
    if (cut) {
      sample.ids = {sample.ids.begin(), sample.ids.begin() + seq_len};
      sample.labels = {sample.labels.begin(), sample.labels.begin() + seq_len};
    }
    const std::int64_t scored = scored_from(sample, 1);
    if (scored == 0) {
      ++counts.skipped;
      if (lost > 0) ++counts.skipped_long;
      return true;
    }
    ++counts.samples;
    counts.tokens += static_cast<std::int64_t>(sample.ids.size());
    counts.scored += scored;
    counts.cut += cut ? 1 : 0;
    counts.lost += lost;
    counts.ended += sample.ended ? 1 : 0;
    return false;
  });
  return counts;
}

[[noreturn]] void refuse_state(std::string_view why) {
  throw UserError(
      "data",
      "saved position",
      fmt::format("{}; resume with the data and options of the run", why));
}

}  // namespace

Mixture::Mixture(std::vector<WeightedSamples> sources, Options options)
    : options_(options) {
  if (options.seq_len < 2) {
    throw UserError(
        "data",
        "seq-len",
        fmt::format("must be at least 2, found {}", options.seq_len));
  }
  if (sources.empty()) throw UserError("data", "sources", "there are none");
  std::size_t samples = 0;
  for (WeightedSamples& data : sources) {
    add_source(std::move(data));
    samples += sources_.back().order.size();
  }
  // Few samples would come twice in one sequence.
  drawn_ahead_ = std::clamp<std::size_t>(samples / 2, 1, kDrawnAhead);
}

void Mixture::add_source(WeightedSamples data) {
  Source source;
  source.counts = prepare(data, options_.seq_len);
  if (data.samples.empty()) {
    throw UserError(
        "data",
        data.name,
        source.counts.skipped_long > 0
            ? fmt::format(
                  "no sample has an answer that begins within {} tokens; take "
                  "a longer --seq-len",
                  options_.seq_len)
            : "no sample has a token that counts for the loss and has a token "
              "before it");
  }
  source.checksum = checksum_of(data.samples);
  source.data = std::move(data);
  source.order.resize(source.data.samples.size());
  sources_.push_back(std::move(source));
}

std::vector<SourceCounts> Mixture::counts() const {
  std::vector<SourceCounts> counts;
  for (const Source& source : sources_) counts.push_back(source.counts);
  return counts;
}

Mixture::Document Mixture::draw() {
  // The source that is furthest behind its share.
  const auto behind = [](const Source& a, const Source& b) {
    return static_cast<double>(a.drawn + 1) / a.data.weight <
           static_cast<double>(b.drawn + 1) / b.data.weight;
  };
  const auto chosen =
      std::min_element(sources_.begin(), sources_.end(), behind);
  const auto index = static_cast<std::size_t>(chosen - sources_.begin());
  Source& source = *chosen;
  const std::uint64_t epoch = source.drawn / source.order.size();
  if (source.order_epoch != epoch) {
    std::iota(source.order.begin(), source.order.end(), 0u);
    Rng rng(options_.seed, std::uint64_t{index} << 40 | epoch);
    rng.shuffle(std::span<std::uint32_t>(source.order));
    source.order_epoch = epoch;
  }
  const std::size_t place = source.drawn % source.order.size();
  ++source.drawn;
  return {index, source.order[place], 0};
}

const Sample& Mixture::sample_of(const Document& document) const {
  return sources_[document.source].data.samples[document.sample];
}

std::size_t Mixture::size_of(const Document& document) const {
  return sample_of(document).ids.size() - document.offset;
}

// The longest document to be kept whole that fits, of those the oldest; else
// the oldest of the others, which fill any room.
Mixture::Documents::iterator Mixture::best_fit(std::size_t room) {
  auto best = waiting_.end();
  auto filler = waiting_.end();
  for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
    if (!sample_of(*it).whole) {
      if (filler == waiting_.end()) filler = it;
    } else if (
        size_of(*it) <= room &&
        (best == waiting_.end() || size_of(*it) > size_of(*best))) {
      best = it;
    }
  }
  return best == waiting_.end() ? filler : best;
}

// Appends as much of the rest of a document as there is room for; returns how
// much that was.
std::size_t Mixture::append(
    const Document& document, PackedSequence& out) const {
  const Sample& sample = sample_of(document);
  const std::size_t room =
      static_cast<std::size_t>(options_.seq_len) - out.ids.size();
  const std::size_t count = std::min(room, size_of(document));
  const auto begin = static_cast<std::ptrdiff_t>(document.offset);
  const auto end = static_cast<std::ptrdiff_t>(document.offset + count);
  const std::size_t start = out.ids.size();
  out.document_starts.push_back(static_cast<std::int64_t>(start));
  out.ids.insert(
      out.ids.end(), sample.ids.begin() + begin, sample.ids.begin() + end);
  out.labels.insert(
      out.labels.end(),
      sample.labels.begin() + begin,
      sample.labels.begin() + end);
  out.labels[start] = kMasked;
  return count;
}

PackedSequence Mixture::next() {
  const auto length = static_cast<std::size_t>(options_.seq_len);
  PackedSequence out;
  out.ids.reserve(length);
  out.labels.reserve(length);
  while (out.ids.size() < length) {
    while (waiting_.size() < drawn_ahead_) waiting_.push_back(draw());
    // The oldest begins, so that none waits for ever.
    const auto chosen =
        out.ids.empty() ? waiting_.begin() : best_fit(length - out.ids.size());
    if (chosen == waiting_.end()) break;
    const std::size_t count = append(*chosen, out);
    if (count == size_of(*chosen)) {
      waiting_.erase(chosen);
    } else {
      // The last token becomes the next sequence's first.
      chosen->offset += count - 1;
    }
  }
  return out;
}

std::size_t Mixture::samples() const {
  std::size_t total = 0;
  for (const Source& source : sources_) total += source.order.size();
  return total;
}

std::uint64_t Mixture::samples_drawn() const {
  std::uint64_t total = 0;
  for (const Source& source : sources_) total += source.drawn;
  return total;
}

// Before a source has begun and ended an epoch, each has drawn all of its
// samples twice at most.
std::size_t Mixture::sequences_at_most() const {
  const auto room = static_cast<std::size_t>(options_.seq_len - 1);
  std::size_t pieces = 1;
  for (const Source& source : sources_) {
    for (const Sample& sample : source.data.samples) {
      pieces += sample.ids.size() / room + 1;
    }
  }
  return 2 * (pieces + kDrawnAhead);
}

Json Mixture::state() const {
  Json sources = Json::array();
  for (const Source& source : sources_) {
    sources.push_back(
        {{"name", source.data.name},
         {"weight", source.data.weight},
         {"checksum", source.checksum},
         {"drawn", source.drawn}});
  }
  Json waiting = Json::array();
  for (const Document& document : waiting_) {
    waiting.push_back(
        {{"source", document.source},
         {"sample", document.sample},
         {"offset", document.offset}});
  }
  return {
      {"seed", options_.seed},
      {"seq_len", options_.seq_len},
      {"sources", std::move(sources)},
      {"current", std::move(waiting)}};
}

Mixture::Document Mixture::read_document(const Json& saved) const {
  const JsonObject at(saved, "data", "saved position");
  const auto read = [&](std::string_view key, std::size_t limit) {
    const std::int64_t value = at.integer(key);
    if (value < 0 || static_cast<std::uint64_t>(value) >= limit) {
      at.refuse(key, "is out of range");
    }
    return static_cast<std::size_t>(value);
  };
  Document document;
  document.source = read("source", sources_.size());
  document.sample =
      read("sample", sources_[document.source].data.samples.size());
  document.offset = read("offset", sample_of(document).ids.size());
  return document;
}

void Mixture::restore(const Json& state) {
  const JsonObject saved(state, "data", "saved position");
  if (saved.at("seed") != options_.seed ||
      saved.integer("seq_len") != options_.seq_len) {
    refuse_state("was made with another seed or sequence length");
  }
  const Json& list = saved.at("sources");
  if (!list.is_array() || list.size() != sources_.size()) {
    refuse_state("was made from another number of files");
  }
  std::vector<std::uint64_t> drawn;
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    const JsonObject source(list[i], "data", "saved position");
    if (source.at("checksum") != sources_[i].checksum) {
      refuse_state(fmt::format(
          "was made from other data than {}", sources_[i].data.name));
    }
    const std::int64_t count = source.integer("drawn");
    if (count < 0) source.refuse("drawn", "is negative");
    drawn.push_back(static_cast<std::uint64_t>(count));
  }
  const Json& documents = saved.at("current");
  if (!documents.is_array() || documents.size() > kDrawnAhead) {
    saved.refuse("current", "must be a short list of documents");
  }
  Documents waiting;
  for (const Json& item : documents) waiting.push_back(read_document(item));
  for (std::size_t i = 0; i < sources_.size(); ++i)
    sources_[i].drawn = drawn[i];
  waiting_ = std::move(waiting);
}

}  // namespace fettle::text
