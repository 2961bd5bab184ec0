// SPDX-License-Identifier: Apache-2.0
// Steps that ranks divide.
#include <fmt/format.h>

#include "../ranks/thread_group.h"
#include "tune/method/method.h"
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

TEST_CASE_METHOD(WholeRuns, "a run goes on with its states at other ranks") {
  const auto [method, unit] = GENERATE(table<std::string, std::string>(
      {{"usaf", "neuron"},
       {"usaf", "block"},
       {"lora", "neuron"},
       {"esft", "neuron"},
       {"full", "neuron"}}));
  CAPTURE(method, unit);
  TuneOptions options = options_of(method);
  options.steps = 7;
  options.unit = unit;
  if (unit == "block") options.block = "3x4";
  if (method == "full") options.states = "ram";
  options.save_every = 2;
  if (unit == "neuron" && method == "usaf") options.drop_by = "moment";
  // Each run has folders of its own for ranks that write nothing.
  const auto begun = [&](std::int64_t size, const char* name, int steps) {
    ranks::as_ranks(size, [&](ranks::Group& group) {
      const auto out = group.rank() == 0
                           ? fmt::format("{}", name)
                           : fmt::format("{}-{}-{}", name, size, group.rank());
      StopAfter stop(group.rank() == 0 ? steps : -1);
      train_on(
          mixture(options.seq_len, 1),
          folder.path() / out,
          options,
          stop,
          &stop.flag,
          {&group, 4});
    });
  };
  begun(1, "whole", -1);
  begun(2, "moved", 3);
  options.resume = true;
  begun(4, "moved", 2);
  begun(3, "moved", 1);
  begun(1, "moved", -1);
  check_same(
      adapter_of(folder.path() / "moved"), adapter_of(folder.path() / "whole"));
}

TEST_CASE("a rank keeps the moments of its own layers") {
  ranks::as_ranks(3, [](ranks::Group& group) {
    const StateOwners owners(ranks::Team{&group, 8});
    const at::Tensor values = at::zeros({4, 2});
    for (std::int64_t l = -1; l < 7; ++l) {
      const std::int64_t owner = l < 0 ? 2 : l % 3;
      const bool mine = group.rank() == owner;
      const AdamWState adam = owners.moments(l, values);
      const std::string key =
          l < 0 ? "weights.lm_head" : fmt::format("weights.layers.{}.x", l);
      if (owners.owner(l) != owner || owners.owns(l) != mine ||
          adam.first.is_meta() == mine || adam.second.is_meta() == mine ||
          adam.age.is_meta() || owners.keeps(key + ".first") != mine ||
          owners.keeps(key + ".second") != mine || !owners.keeps(key) ||
          !owners.keeps(key + ".age")) {
        throw std::runtime_error("layer " + std::to_string(l));
      }
    }
  });
  const StateOwners alone;
  CHECK_FALSE(alone.divide());
  CHECK(alone.owns(5));
  CHECK(alone.keeps("weights.layers.5.x.first"));
}

TEST_CASE("the plan counts a rank's share of moments and gradients") {
  const TemporaryFolder folder;
  write_tiny_model(folder.path());
  const model::ModelReader reader(folder.path());
  const std::int64_t layers = reader.config().num_layers();
  CHECK(state_share(48, 1) == 1.0);
  CHECK(state_share(48, 8) == Approx(7.0 / 48));
  CHECK(state_share(61, 8) == Approx(9.0 / 61));
  CHECK(state_share(2, 4) == 1.0);
  for (const char* method : {"usaf", "smt", "lora", "esft", "full"}) {
    INFO(method);
    TuneOptions options = options_of(method);
    options.states = std::string(method) == "full" ? "ram" : options.states;
    const auto bytes = [&](std::int64_t ranks) {
      return part_bytes(options, reader.config(), at::kCPU, ranks);
    };
    const PartBytes one = bytes(1);
    CHECK(one.divided_ram > 0.0);
    CHECK(one.divided_ram < one.ram);
    const double left = one.ram - bytes(layers).ram;
    CHECK(left == Approx(one.divided_ram * (1.0 - 2.0 / layers)));
  }
}
