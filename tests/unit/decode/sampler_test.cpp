// SPDX-License-Identifier: Apache-2.0
#include "decode/sampler.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <map>

#include "core/error.h"

using namespace fettle;
using namespace fettle::decode;

namespace {

// Logits of these probabilities.
std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) {
    logits.push_back(static_cast<float>(std::log(p)));
  }
  return logits;
}

// How often each token comes in many draws.
std::map<std::int32_t, int> counts(
    const SamplingOptions& options, const std::vector<float>& logits) {
  std::map<std::int32_t, int> found;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    SamplingOptions own = options;
    own.seed = seed;
    ++found[Sampler(own, {}).next(logits)];
  }
  return found;
}

const std::vector<float> kLogits = logits_of({0.1, 0.4, 0.2, 0.3});

}  // namespace

TEST_CASE("without a temperature it is the likeliest, the first of equals") {
  Sampler sampler({}, {});
  CHECK(sampler.next(kLogits) == 1);
  CHECK(sampler.next(std::vector<float>{1, 3, 3}) == 1);
}

TEST_CASE("tokens come as often as they are likely") {
  auto found = counts({.temperature = 1.0}, kLogits);
  // Two thousand draws: deviations are below 0.011.
  for (const auto& [id, p] :
       std::map<std::int32_t, double>{{0, .1}, {1, .4}, {2, .2}, {3, .3}}) {
    CHECK(found[id] / 2000.0 == Approx(p).margin(0.05));
  }
  // At a half, probabilities are squared.
  found = counts({.temperature = 0.5}, kLogits);
  CHECK(found[1] / 2000.0 == Approx(.16 / .30).margin(0.05));
}

TEST_CASE("each option leaves the tokens that it says") {
  const auto left = [](SamplingOptions options) {
    options.temperature = 1.0;
    std::vector<std::int32_t> ids;
    for (const auto& [id, n] : counts(options, kLogits)) ids.push_back(id);
    return ids;
  };
  using Ids = std::vector<std::int32_t>;
  CHECK(left({.top_k = 2}) == Ids{1, 3});
  CHECK(left({.top_p = 0.65}) == Ids{1, 3});
  CHECK(left({.top_p = 0.75}) == Ids{1, 2, 3});
  CHECK(left({.top_p = 0.0}) == Ids{1});
  CHECK(left({.min_p = 0.7}) == Ids{1, 3});
  // top_p counts among what top_k leaves: 4/7 of it is the first.
  CHECK(left({.top_k = 2, .top_p = 0.5}) == Ids{1});
}

TEST_CASE("a bias is added before all else") {
  const std::vector<float> logits{1.0f, 2.0f, 3.0f};
  const auto likeliest = [&](std::int32_t id, float added) {
    SamplingOptions options;
    options.bias = {{id, added}};
    return Sampler(options, {}).next(logits);
  };
  CHECK(likeliest(2, -1.5f) == 1);
  CHECK(likeliest(0, 2.5f) == 0);
  CHECK(likeliest(7, 100.0f) == 2);  // no such token
}

TEST_CASE("penalties weigh on what was there") {
  const std::vector<float> logits{2.0f, 1.9f, -1.0f, -1.1f};
  const std::vector<std::int32_t> prompt{0};
  CHECK(Sampler({.repetition_penalty = 1.2}, prompt).next(logits) == 1);
  // Negative logits move away from 0.
  const std::vector<float> negative{-5.0f, -5.0f, -1.0f, -1.1f};
  CHECK(
      Sampler({.repetition_penalty = 1.2}, std::vector<std::int32_t>{2})
          .next(negative) == 3);
  // A prompt's tokens were not made.
  CHECK(Sampler({.presence_penalty = 1.0}, prompt).next(logits) == 0);
  Sampler presence({.presence_penalty = 0.15}, {});
  CHECK(presence.next(logits) == 0);
  CHECK(presence.next(logits) == 1);
  CHECK(presence.next(logits) == 0);
  CHECK(presence.next(logits) == 0);
  Sampler frequency({.frequency_penalty = 0.15}, {});
  CHECK(frequency.next(logits) == 0);
  CHECK(frequency.next(logits) == 1);
  CHECK(frequency.next(logits) == 0);
  CHECK(frequency.next(logits) == 1);
}

TEST_CASE("chances are log-probabilities, likeliest first") {
  const Chances chances = chances_of(kLogits, 2, 2);
  CHECK(chances.chosen.id == 2);
  CHECK(std::exp(chances.chosen.log_prob) == Approx(0.2));
  REQUIRE(chances.likeliest.size() == 2);
  CHECK(chances.likeliest[0].id == 1);
  CHECK(std::exp(chances.likeliest[1].log_prob) == Approx(0.3));
  CHECK(chances_of(kLogits, 0, 9).likeliest.size() == 4);
}

TEST_CASE("logits that are not numbers are refused") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const auto& logits :
       {std::vector<float>{1, nan},
        std::vector<float>{1, infinity},
        std::vector<float>{-infinity, -infinity}}) {
    CHECK_THROWS_AS(Sampler({}, {}).next(logits), UserError);
    CHECK_THROWS_AS(Sampler({.temperature = 1.0}, {}).next(logits), UserError);
  }
}
