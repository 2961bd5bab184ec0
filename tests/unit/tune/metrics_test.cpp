// SPDX-License-Identifier: Apache-2.0
#include "tune/metrics.h"

#include <sys/resource.h>

#include <catch2/catch.hpp>
#include <csignal>
#include <fstream>

#include "core/error.h"
#include "tiny_model.h"

using namespace fettle;
using namespace fettle::tune;
namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

TEST_CASE("metrics of steps to be made again are dropped") {
  const testing::TemporaryFolder folder;
  const fs::path path = folder.path() / "metrics.jsonl";
  {
    MetricsFile metrics(path, -1);
    for (int step = 0; step < 4; ++step) metrics.append({{"step", step}});
  }
  std::ofstream(path, std::ios::app) << "{\"step\": 4, \"lo";
  MetricsFile metrics(path, 2);
  metrics.append({{"step", 3}, {"loss", 0.5}});
  CHECK(
      text_of(path) ==
      "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n{\"loss\":0.5,\"step\":3}\n");
  MetricsFile fresh(path, -1);
  CHECK(text_of(path).empty());
}

TEST_CASE("a disk that refuses metrics is reported") {
  const testing::TemporaryFolder folder;
  MetricsFile metrics(folder.path() / "metrics.jsonl", -1);
  // No file may be longer than this.
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  const rlimit little{100, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &little) == 0);
  CHECK_THROWS_AS(
      metrics.append({{"step", 0}, {"text", std::string(200, 'x')}}),
      UserError);
  REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, handler);
}

TEST_CASE("metrics of another kind are refused") {
  const testing::TemporaryFolder folder;
  const fs::path path = folder.path() / "metrics.jsonl";
  const std::string line = GENERATE(
      "no json",
      "[1]",
      "{}",
      R"({"step": "1"})",
      R"({"step": 1, "eval": 3})",
      R"({"step": 1, "eval": {"a": 3}})",
      R"({"step": 1, "eval": {"a": {"nll": "x"}}})",
      R"({"step": 1, "seconds": 3})",
      R"({"step": 1, "choices": [["x"]]})");
  std::ofstream(path) << R"({"step": 0, "eval": {"a": {"nll": 2}}})"
                      << "\n"
                      << line << "\n";
  CHECK_THROWS_AS(read_metrics(path), UserError);
}
