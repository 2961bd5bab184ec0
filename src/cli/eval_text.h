// SPDX-License-Identifier: Apache-2.0
// Evaluation results as JSON and as a table.
#pragma once

#include <string>

#include "core/json.h"
#include "sweep/evaluate.h"

namespace fettle::cli {

Json eval_json(const sweep::EvalResult& result);
std::string eval_table(const sweep::EvalResult& result);
double mean_nll(const sweep::EvalResult& result);  // over the sets

}  // namespace fettle::cli
