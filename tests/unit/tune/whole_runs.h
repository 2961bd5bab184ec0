// SPDX-License-Identifier: Apache-2.0
// Whole runs of tuning on a tiny model, and what they leave.
#pragma once

#include <atomic>
#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <vector>

#include "artifact/run_state.h"
#include "artifact/tensor_file.h"
#include "tiny_model.h"
#include "tune/tune.h"

namespace fettle::tune::testing {

namespace fs = std::filesystem;

inline TuneOptions small_options() {
  TuneOptions options;
  options.steps = 7;
  options.tokens_per_step = 64;
  options.seq_len = 16;
  options.lr = 0.02;
  options.warmup = 2;
  options.weight_decay = 0.01;
  options.frac = 0.25;
  options.score_sequences = 6;
  options.reselect_every = 3;
  options.router_warmup = 2;
  options.router_lr = 0.01;
  options.save_every = 2;
  options.eval_every = 3;
  return options;
}

// Asks for a stop once a number of steps were made.
class StopAfter : public SilentReporter {
 public:
  explicit StopAfter(int steps) : left_(steps) {}
  std::size_t begin(ProgressTask task) override {
    ++ids_;
    if (task.label == "tune") tune_ = ids_;
    return ids_;
  }
  void advance(std::size_t id, std::uint64_t) override {
    if (id == tune_ && --left_ == 0) flag.store(true);
  }
  std::atomic<bool> flag{false};

 private:
  int left_;
  std::size_t ids_ = 0;
  std::size_t tune_ = 0;
};

// Keeps what is told.
class Notes : public SilentReporter {
 public:
  void note(std::string_view text) override { all += std::string(text) + "\n"; }
  void tell(std::size_t, std::string text) override {
    told.push_back(std::move(text));
  }
  std::string all;
  std::vector<std::string> told;  // of progress
};

struct WholeRuns {
  TemporaryFolder folder;
  fs::path base = folder.path() / "base";
  fs::path teacher;
  std::atomic<int> teachers_opened = 0;
  std::vector<sweep::EvalSet> held_out{{"held", sequences(4, 16)}};
  std::int64_t micro_batch_tokens = 32;
  // Keeps next to nothing in memory: layers are read from disk each time.
  bool from_disk = false;

  WholeRuns() { write_tiny_model(base); }

  TuneResult train_on(
      text::Mixture train,
      const fs::path& out,
      const TuneOptions& options,
      Reporter& reporter,
      const std::atomic<bool>* stop = nullptr,
      const ranks::Team& team = {}) {
    const auto model = from_disk ? std::make_unique<model::CausalLm>(
                                       base, model::ModelOptions{})
                                 : open_model(base);
    TuneInput input{
        .model = *model,
        .train = train,
        .held_out = held_out,
        .out = out,
        .micro_batch_tokens = micro_batch_tokens,
        .sweep = {},
        .stop_requested = stop};
    input.sweep.team = team;
    if (from_disk) input.sweep.activations.ram_bytes = 4096;
    if (!teacher.empty()) {
      input.teacher_fingerprint = teacher.string();
      input.open_teacher = [this] {
        ++teachers_opened;
        return Teacher{open_model(teacher), 48, {}};
      };
    }
    return tune::tune(input, options, reporter);
  }
  TuneResult run(
      const fs::path& out,
      const TuneOptions& options,
      StopAfter& reporter,
      std::uint64_t data_seed = 1) {
    return train_on(
        mixture(options.seq_len, data_seed),
        out,
        options,
        reporter,
        &reporter.flag);
  }
  TuneResult run(const fs::path& out, const TuneOptions& options) {
    StopAfter never(-1);
    return run(out, options, never);
  }
};

inline artifact::TensorMap adapter_of(const fs::path& out) {
  return artifact::load_tensors(out / "adapter.safetensors").tensors;
}

inline std::vector<Json> lines_of(const fs::path& path) {
  std::ifstream file(path);
  std::vector<Json> lines;
  for (std::string line; std::getline(file, line);) {
    lines.push_back(Json::parse(line));
  }
  return lines;
}

inline void check_same(
    const artifact::TensorMap& a, const artifact::TensorMap& b) {
  REQUIRE(a.size() == b.size());
  for (const auto& [name, tensor] : a) {
    INFO(name);
    CHECK(tensor.equal(b.at(name)));
  }
}

}  // namespace fettle::tune::testing
