// SPDX-License-Identifier: Apache-2.0
#include "tune/metrics.h"

#include <catch2/catch.hpp>
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
  // Writes to this device always find it full.
  if (!fs::exists("/dev/full")) return;
  const testing::TemporaryFolder folder;
  const fs::path path = folder.path() / "metrics.jsonl";
  fs::create_symlink("/dev/full", path);
  CHECK_THROWS_AS(MetricsFile(path, -1).append({{"step", 0}}), UserError);
}
