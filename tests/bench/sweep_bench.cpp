// SPDX-License-Identifier: Apache-2.0
// Serves timed sweeps to a driver that interleaves them with another program's
// (tests/bench/sweeps.py): reads a command a line, answers with JSON a line.
//   forward       NLL of all tokens
//   layers        forward through the layers, without the head
//   backward      forward and backward, no gradient of a weight
//   gradient      forward and backward, gradient of every weight of every layer
//   scores        forward and backward with mask_fisher's observer
//   scores A,B    the sweeps that analyze makes for these scores, to the scores
//   matmul        the device's own matrix-product rate
//   peak          the most memory of the device so far
#include <ATen/Parallel.h>

#include <chrono>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>

#include "analyze/score_method.h"
#include "analyze/score_set.h"
#include "core/json.h"
#include "core/memory.h"
#include "kernels/device_backend.h"
#include "model/causal_lm.h"
#include "model/weights/weight_visit.h"
#include "sweep/micro_batches.h"
#include "sweep/sweep.h"

namespace {

using namespace fettle;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Asks for the gradient of every weight of a layer, as training all of it does.
class AllGradients : public sweep::Observer {
 public:
  void begin_layer(
      sweep::Pass pass, std::int64_t, model::LayerWeights& weights) override {
    if (pass == sweep::Pass::kBackward) return;
    model::for_each_tensor(
        weights, [](at::Tensor& w) { w.set_requires_grad(true); });
  }
  void end_layer(
      sweep::Pass pass, std::int64_t, model::LayerWeights& weights) override {
    if (pass == sweep::Pass::kForward) return;
    model::for_each_tensor(weights, [](at::Tensor& w) {
      w.mutable_grad().reset();
      w.set_requires_grad(false);
    });
  }
};

double nll_sum(const std::vector<at::Tensor>& nll) {
  double sum = 0;
  for (const auto& n : nll) sum += n.sum(at::kDouble).item<double>();
  return sum;
}

// As analyze does it, every micro-batch being a gradient's batch.
double run_scores(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const std::string& names,
    sweep::Sweep& sweep) {
  std::vector<std::string> list;
  std::istringstream in(names);
  for (std::string name; std::getline(in, name, ',');) list.push_back(name);
  analyze::ScoreSet scores({.config = model.config()}, list);
  std::vector<analyze::GradientBatch> gradients;
  for (const auto& batch : batches) {
    gradients.push_back({1, sweep::loss_tokens({batch})});
  }
  scores.begin_sweeps(gradients);
  sweep.forward(scores.forward(), {.keep_boundaries = scores.needs_backward()});
  double nll = 0;
  if (scores.needs_backward()) {
    nll = nll_sum(sweep.token_nll_with_gradient(1.0));
    sweep.backward(scores.backward());
  }
  for (std::int64_t l = 0; l < model.config().num_layers(); ++l) {
    scores.finish(l);
  }
  return nll;
}

double run_sweep(
    model::CausalLm& model,
    const std::vector<model::TokenBatch>& batches,
    const std::string& what) {
  sweep::SweepOptions options;
  // As the plan decides where memory allows it.
  options.keep_graphs = model.options().device.is_cpu();
  options.activations.device_bytes = std::int64_t{1} << 40;
  sweep::Sweep sweep(model, batches, options);
  if (what == "forward" || what == "layers") {
    sweep.forward({}, {});
    return what == "forward" ? nll_sum(sweep.token_nll()) : 0;
  }
  constexpr std::string_view kScores = "scores ";
  if (what.starts_with(kScores)) {
    return run_scores(model, batches, what.substr(kScores.size()), sweep);
  }
  if (what == "backward") {
    sweep.forward({}, {.keep_boundaries = true});
    const double nll = nll_sum(sweep.token_nll_with_gradient(1.0));
    sweep.backward({});
    return nll;
  }
  AllGradients all;
  const auto scores =
      analyze::find_score("mask_fisher").make({model.config(), 0});
  sweep::Observer* observer =
      what == "scores" ? static_cast<sweep::Observer*>(scores.get()) : &all;
  sweep.forward(std::span(&observer, 1), {.keep_boundaries = true});
  const double scored = static_cast<double>(sweep::loss_tokens(batches));
  const double nll = nll_sum(sweep.token_nll_with_gradient(1.0 / scored));
  sweep.backward(std::span(&observer, 1));
  return nll;
}

Json matmul_rate(const model::ModelOptions& options) {
  const std::int64_t n = options.device.is_cpu() ? 2048 : 8192;
  const at::TensorOptions type =
      at::TensorOptions(options.compute_type).device(options.device);
  const at::Tensor a = at::randn({n, n}, type), b = at::randn({n, n}, type);
  at::Tensor c = at::empty({n, n}, type);
  // Asking for a value waits for all of them.
  const auto wait = [&] { c[0][0].item(); };
  at::mm_out(c, a, b);
  wait();
  const auto begin = Clock::now();
  constexpr int repeats = 4;
  for (int i = 0; i < repeats; ++i) at::mm_out(c, a, b);
  wait();
  const double flops = 2.0 * static_cast<double>(n * n * n) * repeats;
  return {{"gflops", flops / seconds_since(begin) * 1e-9}};
}

Json peak_memory(at::Device device) {
  if (device.is_cpu()) return {{"bytes", peak_resident_memory()}};
  return {{"bytes", kernels::peak_device_memory(device)}};
}

std::vector<model::TokenBatch> read_batches(
    const std::string& file,
    const model::ModelConfig& config,
    std::int64_t micro_batch) {
  std::vector<model::Sequence> sequences;
  for (const auto& line : read_json(file, "bench")) {
    const auto ids = line.get<std::vector<std::int32_t>>();
    sequences.push_back({ids, ids, {}});
  }
  return sweep::micro_batches(sequences, micro_batch, config.vocab_size);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::cerr << "usage: fettle_bench_sweep MODEL IDS.json MICRO_BATCH THREADS "
                 "DEVICE float32|bfloat16\n";
    return 2;
  }
  at::set_num_threads(std::stoi(argv[4]));
  const model::ModelOptions options{
      .device = kernels::open_device(parse_device(argv[5])),
      .compute_type =
          std::string_view(argv[6]) == "float32" ? at::kFloat : at::kBFloat16,
      .resident_bytes = std::int64_t{1} << 40};
  model::CausalLm model(argv[1], options);
  const auto batches =
      read_batches(argv[2], model.config(), std::stoll(argv[3]));
  for (std::string what; std::getline(std::cin, what);) {
    if (what == "matmul") {
      std::cout << matmul_rate(options).dump() << std::endl;
      continue;
    }
    if (what == "peak") {
      std::cout << peak_memory(options.device).dump() << std::endl;
      continue;
    }
    const auto begin = Clock::now();
    const double nll = run_sweep(model, batches, what);
    std::cout << Json{{"seconds", seconds_since(begin)}, {"nll", nll}}.dump()
              << std::endl;
  }
  return 0;
}
