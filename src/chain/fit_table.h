// SPDX-License-Identifier: Apache-2.0
// Which of the models that may be made of one would fit a machine: shares of
// the experts' neurons by schemes, from headers alone.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "chain/candidate.h"
#include "core/json.h"

namespace fettle::chain {

enum class Fits {
  kYes,
  kSplit,    // with the experts of some layers in RAM
  kStreams,  // runs, but reads layers anew for each token
  kNo,
};

struct FitRow {
  Cut cut = {};
  std::int64_t width = 0;  // of the widest expert
  Footprint footprint = {};
  Fits fits = Fits::kYes;
  // What is left under the tightest bound; below 0: what is missing.
  std::int64_t left = 0;
  std::int64_t moved_layers = 0;     // whose experts lie in RAM
  std::int64_t read_bytes = 0;       // for each token, where it streams
  std::int64_t longest_context = 0;  // that fits; 0: none

  Json to_json() const;
};

struct RefusedScheme {
  std::string label;
  std::string why;
};

struct FitTable {
  FitRequest request = {};  // settled
  std::vector<FitRow> rows = {};
  std::vector<RefusedScheme> refused = {};  // by the engine
  FitRow smallest = {};  // the row that needs least to lie in memory whole
  FitRow least = {};     // that needs least to run at all
  std::int64_t max_context = 0;  // the model's own

  Json to_json() const;
};

// The request with what bends to the model where nothing was said: the context,
// 8192 tokens or as many as the model has positions. Throws UserError on a
// context beyond those, on shares and schemes out of range, and where the
// engine can't run such a model.
FitRequest settled(FitRequest request, const FitSource& source);

// `request` as settled() gives it. Throws UserError where no row fits, naming
// the least that would do, by part.
FitTable fit_table(const FitSource& source, const FitRequest& request);

std::string_view fits_name(Fits fits);

}  // namespace fettle::chain
