// SPDX-License-Identifier: Apache-2.0
#include "decode/prefix_cache.h"

#include <utility>

#include "core/error.h"

namespace fettle::decode {
namespace {

at::Tensor copied(const at::Tensor& t) { return t.defined() ? t.clone() : t; }

}  // namespace

PrefixCache::PrefixCache(std::int64_t part, std::int64_t tokens)
    : part_(part), most_(tokens / part) {
  FETTLE_ASSERT(part > 0 && tokens >= 0);
}

PrefixCache::Ids PrefixCache::ids_of(
    std::span<const std::int32_t> prompt, std::int64_t begin) const {
  const auto some = prompt.subspan(
      static_cast<std::size_t>(begin), static_cast<std::size_t>(part_));
  return {some.begin(), some.end()};
}

PrefixCache::Part* PrefixCache::find(
    std::span<const std::int32_t> prompt, std::int64_t length) {
  Part* part = &root_;
  for (std::int64_t begin = 0; begin < length; begin += part_) {
    const auto next = part->next.find(ids_of(prompt, begin));
    if (next == part->next.end()) return nullptr;
    part = next->second.get();
    part->used = ++clock_;
  }
  return part;
}

std::int64_t PrefixCache::extend(
    SequenceState& state, std::span<const std::int32_t> prompt) {
  if (parts_ == 0 || state.length() % part_ != 0) return 0;
  const at::NoGradGuard no_grad;
  std::int64_t added = 0;
  Part* part = find(prompt, state.length());
  while (part != nullptr && state.length() + part_ < std::ssize(prompt)) {
    const auto next = part->next.find(ids_of(prompt, state.length()));
    if (next == part->next.end()) break;
    part = next->second.get();
    part->used = ++clock_;
    for (std::size_t l = 0; l < part->layers.size(); ++l) {
      const model::LayerState& kept = part->layers[l];
      model::LayerState& layer = state.layer(static_cast<std::int64_t>(l));
      if (kept.cache.key.defined()) {
        layer.cache.append(kept.cache.key, kept.cache.value);
      }
      layer.tail = copied(kept.tail);
      layer.recurrent = copied(kept.recurrent);
    }
    state.grow(part_);
    added += part_;
  }
  return added;
}

void PrefixCache::keep(
    SequenceState& state, std::span<const std::int32_t> prompt) {
  const std::int64_t begin = state.length() - part_;
  if (most_ == 0 || begin < 0 || begin % part_ != 0) return;
  const at::NoGradGuard no_grad;
  Part* before = find(prompt, begin);
  if (before == nullptr) return;
  auto& place = before->next[ids_of(prompt, begin)];
  if (place != nullptr) return;
  place = std::make_unique<Part>();
  place->used = ++clock_;
  for (std::int64_t l = 0; l < state.layers(); ++l) {
    const model::LayerState& layer = state.layer(l);
    model::LayerState kept;
    if (layer.cache.key.defined()) {
      kept.cache.key = layer.cache.key.narrow(0, begin, part_).clone();
      kept.cache.value = layer.cache.value.narrow(0, begin, part_).clone();
      kept.cache.length = part_;
    }
    kept.tail = copied(layer.tail);
    kept.recurrent = copied(layer.recurrent);
    place->layers.push_back(std::move(kept));
  }
  if (++parts_ > most_) forget_oldest();
}

// A part that others follow is younger than they are only by what was found
// through it: it stays until they are gone.
void PrefixCache::forget_oldest() {
  std::map<Ids, std::unique_ptr<Part>>* home = nullptr;
  std::map<Ids, std::unique_ptr<Part>>::iterator oldest;
  std::vector<Part*> open{&root_};
  while (!open.empty()) {
    Part* part = std::exchange(open.back(), nullptr);
    open.pop_back();
    for (auto it = part->next.begin(); it != part->next.end(); ++it) {
      if (!it->second->next.empty()) {
        open.push_back(it->second.get());
      } else if (home == nullptr || it->second->used < oldest->second->used) {
        home = &part->next;
        oldest = it;
      }
    }
  }
  home->erase(oldest);
  --parts_;
}

}  // namespace fettle::decode
