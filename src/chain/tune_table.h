// SPDX-License-Identifier: Apache-2.0
// What each method of tuning takes of a machine, by place, and how long its
// steps are: the plans that tune makes, from headers alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "chain/fit_request.h"
#include "chain/fit_source.h"
#include "chain/rates.h"
#include "core/json.h"

namespace fettle::chain {

struct TuneRow {
  std::string method;
  std::string stored;  // how the frozen weights lie
  // The least budgets with which it runs; vram 0 where the CPU computes.
  std::int64_t vram = 0;
  std::int64_t ram = 0;
  std::int64_t disk = 0;  // states and spilled activations, under the bounds
  std::int64_t read_bytes = 0;  // of a step, from disk
  std::int64_t written_bytes = 0;
  double seconds = 0.0;  // of a step: products, or the disk where that is more
  bool fits = true;
  std::int64_t left = 0;  // under the tightest bound; below 0: missing

  Json to_json() const;
};

struct TuneTable {
  std::vector<TuneRow> rows = {};
  std::int64_t tokens_per_step = 0;
  std::int64_t seq_len = 0;
  Rates rates = {};

  Json to_json() const;
};

// Throws UserError where no method fits, naming the least that would do.
TuneTable tune_table(
    const FitSource& source, const FitRequest& request, const Rates& rates);

}  // namespace fettle::chain
