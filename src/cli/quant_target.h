// SPDX-License-Identifier: Apache-2.0
// What a quantized model will weigh where it is to run, judged before any pass
// over data: what its format can't hold, and what a budget can't hold.
#pragma once

#include "cli/quant_flags.h"
#include "cli/target_weight.h"

namespace fettle::cli {

// Sets what was left open to suit the target: the group, and under --budget for
// another program than Fettle, whose experts share a scheme, the schemes of the
// experts. Throws UserError where the target can't hold the result, or a budget
// is less than the least that there is, naming that.
void settle(QuantFlags& flags, const model::ModelReader& reader);

// The quantized model in its target's format; coded trits as plain ones, which
// take more. Of a model whose bits are still to be shared out: with the fewest
// bits of each weight.
TargetWeight weigh(const QuantFlags& flags, const model::ModelReader& reader);

// The quantized model in its target's format, its weights stored by a plan.
using SchemeOf = std::function<quant::Scheme(const model::WeightId&)>;
TargetWeight weigh(
    const QuantFlags& flags,
    const model::ModelReader& reader,
    const SchemeOf& scheme);

}  // namespace fettle::cli
