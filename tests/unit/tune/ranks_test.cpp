// SPDX-License-Identifier: Apache-2.0
// Steps that ranks divide.
#include <fmt/format.h>

#include "../ranks/thread_group.h"
#include "whole_runs.h"

using namespace fettle;
using namespace fettle::tune;
using namespace fettle::tune::testing;

namespace {

// Only what the method reads may differ from the defaults.
TuneOptions options_of(const std::string& method) {
  TuneOptions options = small_options();
  options.method = method;
  options.steps = 3;
  options.save_every = 0;
  options.router_warmup = 0;
  const bool chooses = has_method(options, "usaf") || method == "smt";
  if (!chooses) {
    options.frac = TuneOptions{}.frac;
    options.reselect_every = 0;
  }
  if (!chooses && method != "esft") {
    options.score_sequences = TuneOptions{}.score_sequences;
  }
  if (has_method(options, "condenser")) {
    options.condenser_after = 1;
    options.condensers = 1;
    options.router = "gumbel";
  }
  if (method == "smt") options.block = "3x4";
  if (method == "lora") {
    options.lora_targets = "experts,attention,dense";
    options.rank = 2;
  }
  if (method == "router_kd") {
    options.kd_weight = 0.5;
    options.kd_top = 6;
  }
  return options;
}

// The loss and gradient of the first step.
void check_close(const std::vector<Json>& a, const std::vector<Json>& b) {
  for (const char* key : {"loss", "grad_norm", "kl"}) {
    if (!a[0].contains(key)) continue;
    INFO(key);
    CHECK(a[0][key].get<double>() == Approx(b[0][key].get<double>()));
  }
  CHECK(a[0]["loss_tokens"] == b[0]["loss_tokens"]);
}

}  // namespace

TEST_CASE_METHOD(WholeRuns, "ranks divide the steps of every method") {
  const auto [method, unit, states] =
      GENERATE(table<std::string, std::string, std::string>(
          {{"usaf+condenser", "neuron", "disk"},
           {"usaf", "block", "disk"},
           {"smt", "neuron", "disk"},
           {"lora", "neuron", "disk"},
           {"esft", "neuron", "disk"},
           {"full", "neuron", "ram"},
           {"full", "neuron", "disk"},
           {"router_kd", "neuron", "disk"}}));
  CAPTURE(method, unit, states);
  held_out.clear();
  TuneOptions options = options_of(method);
  options.unit = unit;
  if (unit == "block") options.block = "3x4";
  options.states = states;
  if (method == "router_kd") {
    teacher = folder.path() / "teacher";
    write_tiny_model(teacher, 2);
  }
  const auto adapter = [&](const std::string& name) {
    const fs::path out = folder.path() / name;
    return method == "full" && states == "disk"
               ? artifact::load_tensors(out / "weights.safetensors").tensors
               : adapter_of(out);
  };
  const auto lines = [&](const std::string& name) {
    return lines_of(folder.path() / name / "metrics.jsonl");
  };
  run(folder.path() / "undivided", options);
  for (const std::int64_t size : {1, 3}) {
    ranks::as_ranks(size, [&](ranks::Group& group) {
      const auto name = group.rank() == 0 ? std::to_string(size)
                                          : fmt::format("of-{}", group.rank());
      StopAfter never(-1);
      train_on(
          mixture(options.seq_len, 1),
          folder.path() / name,
          options,
          never,
          nullptr,
          {&group, 4});
    });
  }
  check_same(adapter("1"), adapter("3"));
  check_close(lines("1"), lines("undivided"));
}
