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

bool counts_for_loss(const Sample& sample) {
  return sample.labels.size() > 1 &&
         std::any_of(
             sample.labels.begin() + 1, sample.labels.end(), [](auto label) {
               return label != kMasked;
             });
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
  for (WeightedSamples& data : sources) {
    std::erase_if(data.samples, [](const Sample& sample) {
      return !counts_for_loss(sample);
    });
    if (data.samples.empty()) {
      throw UserError(
          "data",
          data.name,
          "no sample has a token that counts for the loss and has a token "
          "before it");
    }
    Source source;
    source.checksum = checksum_of(data.samples);
    source.data = std::move(data);
    source.order.resize(source.data.samples.size());
    sources_.push_back(std::move(source));
  }
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

// Appends as much of the rest of a document as there is room for.
void Mixture::append(const Document& document, PackedSequence& out) const {
  const Sample& sample = sample_of(document);
  const std::size_t room =
      static_cast<std::size_t>(options_.seq_len) - out.ids.size();
  const std::size_t count = std::min(room, sample.ids.size() - document.offset);
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
}

PackedSequence Mixture::next() {
  const auto length = static_cast<std::size_t>(options_.seq_len);
  PackedSequence out;
  out.ids.reserve(length);
  out.labels.reserve(length);
  while (out.ids.size() < length) {
    if (!current_) current_ = draw();
    const std::size_t before = out.ids.size();
    append(*current_, out);
    current_->offset += out.ids.size() - before;
    if (current_->offset == sample_of(*current_).ids.size()) {
      current_.reset();
    } else {
      // The last token becomes the next sequence's first.
      --current_->offset;
    }
  }
  return out;
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
  Json state = {
      {"seed", options_.seed},
      {"seq_len", options_.seq_len},
      {"sources", std::move(sources)},
      {"current", nullptr}};
  if (current_) {
    state["current"] = {
        {"source", current_->source},
        {"sample", current_->sample},
        {"offset", current_->offset}};
  }
  return state;
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
  std::optional<Document> current;
  if (saved.has("current")) {
    const JsonObject at = saved.object("current");
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
    current = document;
  }
  for (std::size_t i = 0; i < sources_.size(); ++i)
    sources_[i].drawn = drawn[i];
  current_ = current;
}

}  // namespace fettle::text
