// SPDX-License-Identifier: Apache-2.0
// The options that every command has.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace fettle::cli {

struct CommonOptions {
  std::string device = "cpu";
  std::string compute_dtype = "auto";
  std::string vram;
  std::string ram;
  std::string scratch;
  std::string json;
  std::uint64_t seed = 1;
  std::string command = {};  // as typed, for reports
  int threads = 0;
  int shards = 0;  // 0: as many as suit the ranks
  bool quiet = false;
};

struct CommonChoice {
  bool budgets = true;  // --ram and --vram too
  bool shards = false;  // --shards too
};
void add_common_options(
    CLI::App& app, CommonOptions& options, CommonChoice choice = {});

}  // namespace fettle::cli
