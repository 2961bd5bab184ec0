// SPDX-License-Identifier: Apache-2.0
// The options of `quant`, and what they mean.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/data_flags.h"
#include "export/target.h"
#include "quant/quantize.h"

namespace fettle::cli {

struct QuantFlags {
  std::vector<std::string> data;
  // A scheme, or an average of bits, with a point: 2.5, 4.0; empty: int4.
  std::string bits;
  std::string down;  // empty: as bits
  std::string shared = "int8";
  std::string dense = "int8";
  std::string attention = "int8";
  std::string embeddings = "keep";
  std::string head;    // empty: as embeddings
  std::string method;  // empty: gptq where there is data
  std::string zeros = "auto";
  std::string calibrate = "routed";
  std::string starved = "mean";
  std::string moments;                     // or what there is room for
  std::optional<std::int64_t> group = {};  // see settle()
  std::int64_t tokens = 131072;
  DataFlags data_flags;
  std::int64_t seq_len = 0;
  double damping = 0.01;
  int refine = 2;
  double entropy_weight = 0.0;
  bool act_order = false;
  bool plain_gate = false;
  // Flags for sharing bits out.
  std::string budget;
  std::optional<double> average_bits = {};
  std::vector<std::string> candidates = {"int2", "int3", "int4", "int8"};
  std::vector<std::string> allocate = {"experts"};
  std::string plan;
  std::string errors;
  std::string prices;  // folder that analyze --prices wrote
  bool plan_only = false;
  std::string target = "fettle";  // --for
  std::vector<std::string> eval_data;

  // Throws UsageError on options that don't go together and on sizes that are
  // none.
  void check() const;
  exporter::Target target_kind() const;
  // The average of bits where one was named.
  std::optional<double> mean_bits() const;
  bool allocates() const { return !budget.empty() || mean_bits(); }
  quant::Schemes schemes() const;
  std::vector<quant::Scheme> candidate_schemes() const;
  // The parts whose schemes are chosen within the budget.
  std::vector<quant::Part> allocated_parts() const;
  quant::GptqOptions gptq() const;
};

void add_quant_flags(CLI::App& app, QuantFlags& flags);

}  // namespace fettle::cli
