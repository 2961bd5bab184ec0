// SPDX-License-Identifier: Apache-2.0
// report.html of a tune run: how the loss went, what was trained and how the
// routers chose, as one page that needs no network and prints well. Template:
// report.html beside this file (Mustache); style and charts are those of all
// reports.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/json.h"
#include "tune/method/method.h"
#include "tune/tune.h"

namespace fettle::tune {

// Weights that a part trains, layer by layer.
struct TrainedPart {
  std::string name;
  std::vector<std::int64_t> weights;  // [L]
  std::int64_t outside = 0;           // embeddings, head, final norm
};

std::vector<TrainedPart> trained_by_layer(
    const Parts& parts, std::int64_t layers);

struct ReportInput {
  std::string title;  // such as the model folder's name
  const TuneOptions& options;
  const TuneResult& result;
  std::vector<Json> metrics;  // lines of metrics.jsonl
  std::vector<TrainedPart> trained;
  artifact::Making making = {};
};

// What the page's charts draw. Lists run over "steps"; a step's missing figure
// is null.
//   steps, loss, nll, kl (the last two null without a teacher), grad_norm,
//   tokens_per_second; lr {part: list}; seconds {kind: list}; clip_norm;
//   held_out {steps, files: {name: list}}, best_step (null: none);
//   trained [{name, weights by layer, outside of them}];
//   choices {step, shares: a row a layer}, of the last that was counted, null
//   where none was.
Json report_data(const ReportInput& input);

// The whole page as text.
std::string report_page(const ReportInput& input);

// Writes it to `file`.
void write_report(const std::filesystem::path& file, const ReportInput& input);

}  // namespace fettle::tune
