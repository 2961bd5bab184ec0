// SPDX-License-Identifier: Apache-2.0
// What a plan is expected to cost in each domain of the data, where files are
// named by domain: the points that calibrate the prices are measured by file,
// and a plan's cuts and rounding divide themselves among the files as theirs
// do.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "chain/fit_plan.h"

namespace fettle::chain {

// KL of one measured point by file.
struct FileLoss {
  std::string file;
  double kl = 0;
};

struct Domain {
  std::string name;
  // Its loss by cuts and by rounding, as a multiple of the mean over domains.
  double cut = 1, round = 1;

  double nats(const FitPlan& plan) const {
    return cut * plan.cut_nats + round * plan.round_nats;
  }
};

// The domain that a file's name ends in: "code" of train_code.jsonl.
std::string domain_name(const std::filesystem::path& file);

// By a cut and a rounding that were measured; where one was not, by the other.
// Fewer than two files, or two of one name: no domains.
std::vector<Domain> domains_of(
    const std::vector<FileLoss>& cut, const std::vector<FileLoss>& rounded);

}  // namespace fettle::chain
