// SPDX-License-Identifier: Apache-2.0
#include "analyze/score_method.h"

#include <fmt/format.h>

#include <array>

#include "core/error.h"

namespace fettle::analyze {
namespace {

constexpr std::array<ScoreMethod, 8> kMethods{{
    {"mask_fisher",
     Unit::kNeuron,
     true,
     false,
     "Fisher information of a 0/1 mask on the neuron",
     make_mask_fisher},
    {"grad_abs",
     Unit::kNeuron,
     true,
     true,
     "mean absolute gradient of the neuron's weights over batches",
     make_grad_abs},
    {"wanda",
     Unit::kNeuron,
     false,
     false,
     "norm of the output weights times norm of the activation",
     make_wanda},
    {"magnitude",
     Unit::kNeuron,
     false,
     false,
     "product of the norms of the neuron's three weight vectors",
     make_magnitude},
    {"random",
     Unit::kNeuron,
     false,
     false,
     "seeded random numbers, to compare with",
     make_random},
    {"reap",
     Unit::kExpert,
     false,
     false,
     "mean of mixing weight times norm of the expert's output",
     make_reap},
    {"frequency",
     Unit::kExpert,
     false,
     false,
     "number of tokens that chose the expert",
     make_frequency},
    {"gate_mass",
     Unit::kExpert,
     false,
     false,
     "sum of the expert's mixing weights",
     make_gate_mass},
}};

}  // namespace

std::span<const ScoreMethod> score_methods() { return kMethods; }

const ScoreMethod& find_score(std::string_view name) {
  std::string known;
  for (const ScoreMethod& method : kMethods) {
    if (method.name == name) return method;
    known += known.empty() ? "" : ", ";
    known += method.name;
  }
  throw UserError(
      "analyze", name, fmt::format("no such score; the known are {}", known));
}

}  // namespace fettle::analyze
