// SPDX-License-Identifier: Apache-2.0
#include "chain/domains.h"

#include <catch2/catch.hpp>

namespace fettle::chain {
namespace {

TEST_CASE("A domain is what a file's name ends in") {
  CHECK(domain_name("/data/train_code.jsonl") == "code");
  CHECK(domain_name("held_long_math.jsonl") == "math");
  CHECK(domain_name("wiki.txt") == "wiki");
}

TEST_CASE("A plan's loss divides itself as the measured points do") {
  const auto domains = domains_of(
      {{"train_code.jsonl", 0.03}, {"train_math.jsonl", 0.01}},
      {{"train_code.jsonl", 0.02}, {"train_math.jsonl", 0.02}});
  REQUIRE(domains.size() == 2);
  CHECK(domains[1].name == "math");
  FitPlan plan;
  plan.cut_nats = 0.2;
  plan.round_nats = 0.1;
  CHECK(domains[0].nats(plan) == Approx(1.5 * 0.2 + 0.1));
  CHECK(domains[1].nats(plan) == Approx(0.5 * 0.2 + 0.1));
}

TEST_CASE("A point that was not measured is taken from the other") {
  const auto domains = domains_of({}, {{"a_x", 0.03}, {"a_y", 0.01}});
  REQUIRE(domains.size() == 2);
  CHECK(domains[0].cut == Approx(1.5));
  CHECK(domains[0].round == Approx(1.5));
  const auto lossless = domains_of({{"a_x", 0}, {"a_y", 0}}, {});
  CHECK(lossless[0].cut == 1);
}

TEST_CASE("Files that have no domains of their own show none") {
  CHECK(domains_of({{"train_code.jsonl", 0.1}}, {}).empty());
  CHECK(domains_of({{"a_code", 0.1}, {"b_code", 0.2}}, {}).empty());
  CHECK(domains_of({}, {}).empty());
}

}  // namespace
}  // namespace fettle::chain
