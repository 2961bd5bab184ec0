// SPDX-License-Identifier: Apache-2.0
#include "decode/sampler.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace fettle::decode {
namespace {

struct Weighted {
  double weight;  // in proportion to its probability
  std::int32_t id;
};

// Whether a comes behind b: a heap's order, the likeliest first, of equal ones
// the smaller id.
bool comes_behind(const Weighted& a, const Weighted& b) {
  return a.weight != b.weight ? a.weight < b.weight : a.id > b.id;
}

// The largest logit. Throws UserError on what is no number.
float largest_logit(std::span<const float> logits) {
  float top = -INFINITY;
  bool numbers = true;
  for (const float logit : logits) {
    numbers = numbers && !std::isnan(logit);
    top = std::max(top, logit);
  }
  if (!numbers || !std::isfinite(top)) {
    throw UserError(
        "generate",
        "logits",
        "the model gives logits that are not numbers; are its weights sound?");
  }
  return top;
}

double total_of(const std::vector<Weighted>& all) {
  double total = 0;
  for (const Weighted& one : all) total += one.weight;
  return total;
}

// Takes the likeliest out of `heap` until the options have enough.
std::vector<Weighted> kept_of(
    std::vector<Weighted>& heap, const SamplingOptions& options) {
  std::ranges::make_heap(heap, comes_behind);
  std::vector<Weighted> kept;
  const auto take = [&] {
    std::ranges::pop_heap(heap, comes_behind);
    kept.push_back(heap.back());
    heap.pop_back();
  };
  double total = 0;
  if (options.top_k > 0) {
    while (!heap.empty() && std::ssize(kept) < options.top_k) take();
    total = total_of(kept);
    std::swap(kept, heap);
    kept.clear();
    std::ranges::make_heap(heap, comes_behind);
  } else {
    total = total_of(heap);
  }
  double mass = 0;
  while (!heap.empty()) {
    const double weight = heap.front().weight;
    const bool enough =
        !kept.empty() && (mass >= options.top_p * total ||
                          weight < options.min_p * kept.front().weight);
    if (enough) break;
    mass += weight;
    take();
  }
  return kept;
}

}  // namespace

Sampler::Sampler(
    const SamplingOptions& options, std::span<const std::int32_t> prompt)
    : options_(options), rng_(options.seed) {
  for (const std::int32_t id : prompt) seen_.try_emplace(id, 0);
}

void Sampler::penalise(std::span<float> logits) const {
  for (const auto& [id, added] : options_.bias) {
    if (id < 0 || id >= std::ssize(logits)) continue;
    logits[static_cast<std::size_t>(id)] += added;
  }
  const auto by = static_cast<float>(options_.repetition_penalty);
  for (const auto& [id, made] : seen_) {
    if (id < 0 || id >= std::ssize(logits)) continue;
    float& logit = logits[static_cast<std::size_t>(id)];
    logit = logit < 0 ? logit * by : logit / by;
    if (made == 0) continue;
    logit -= static_cast<float>(
        options_.presence_penalty +
        options_.frequency_penalty * static_cast<double>(made));
  }
}

std::int32_t Sampler::draw(std::span<const float> logits) {
  const float top = largest_logit(logits);
  if (options_.temperature <= 0) {
    return static_cast<std::int32_t>(
        std::ranges::find(logits, top) - logits.begin());
  }
  std::vector<Weighted> all(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double distance =
        static_cast<double>(logits[i]) - static_cast<double>(top);
    all[i] = {
        std::exp(distance / options_.temperature),
        static_cast<std::int32_t>(i)};
  }
  const bool narrows =
      options_.top_k > 0 || options_.top_p < 1.0 || options_.min_p > 0.0;
  const std::vector<Weighted> kept =
      narrows ? kept_of(all, options_) : std::move(all);
  double target = rng_.uniform() * total_of(kept);
  std::size_t i = 0;
  while (i + 1 < kept.size() && target >= kept[i].weight) {
    target -= kept[i++].weight;
  }
  return kept[i].id;
}

std::int32_t Sampler::next(std::span<const float> logits) {
  const bool penalises =
      options_.repetition_penalty != 1.0 || options_.presence_penalty != 0.0 ||
      !options_.bias.empty() || options_.frequency_penalty != 0.0;
  std::int32_t id = 0;
  if (penalises) {
    std::vector<float> changed(logits.begin(), logits.end());
    penalise(changed);
    id = draw(changed);
  } else {
    id = draw(logits);
  }
  ++seen_[id];
  return id;
}

Chances chances_of(
    std::span<const float> logits, std::int32_t chosen, std::int64_t count) {
  const double top = largest_logit(logits);
  double sum = 0;
  std::vector<Weighted> heap(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double logit = logits[i];
    sum += std::exp(logit - top);
    heap[i] = {logit, static_cast<std::int32_t>(i)};
  }
  const double log_sum = top + std::log(sum);
  Chances chances;
  chances.chosen = {
      chosen,
      static_cast<double>(logits[static_cast<std::size_t>(chosen)]) - log_sum};
  if (count > 0) std::ranges::make_heap(heap, comes_behind);
  while (std::ssize(chances.likeliest) < count && !heap.empty()) {
    std::ranges::pop_heap(heap, comes_behind);
    chances.likeliest.push_back({heap.back().id, heap.back().weight - log_sum});
    heap.pop_back();
  }
  return chances;
}

}  // namespace fettle::decode
