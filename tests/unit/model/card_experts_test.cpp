// SPDX-License-Identifier: Apache-2.0
// Experts on a card, computed together where they can be, against the same on
// the CPU, one by one.
#include <ATen/CPUGeneratorImpl.h>

#include <catch2/catch.hpp>

#include "card.h"
#include "model/layers/experts.h"

namespace fettle::model {
namespace {

using testing::card;

constexpr std::int64_t kHidden = 32, kTokens = 40;

// Sums what it sees of each expert.
struct Sums : LayerTap {
  explicit Sums(std::int64_t experts)
      : forward(experts, 0.0), backward(experts, 0.0) {}
  bool wants_experts() const override { return true; }
  bool wants_expert_gradients() const override { return true; }
  static double sum(const at::Tensor& x) {
    return x.square().sum(at::kDouble).item<double>();
  }
  void on_expert(std::int64_t, const ExpertView& view) override {
    forward[view.expert] = sum(view.x) + sum(view.gate_up) + sum(view.h) +
                           sum(view.y) + sum(view.weight);
  }
  void on_expert_gradient(std::int64_t, const ExpertGradView& view) override {
    backward[view.expert] = sum(view.x) + sum(view.h) + sum(view.dh) +
                            sum(view.d_gate_up) + sum(view.dy) +
                            sum(view.weight);
  }
  std::vector<double> forward, backward;
};

struct Found {
  std::vector<at::Tensor> tensors;  // the output, then gradients
  std::vector<double> forward, backward;
};

struct Inputs {
  explicit Inputs(const std::vector<std::int64_t>& widths) {
    // A generator of its own: at::manual_seed would ask ATen about CUDA.
    const auto generator = at::detail::createCPUGenerator(1);
    const auto randn = [&](at::IntArrayRef sizes) {
      return at::randn(sizes, generator, at::kFloat);
    };
    bank.offsets = {0};
    for (const std::int64_t w : widths) {
      bank.offsets.push_back(bank.offsets.back() + w);
    }
    const std::int64_t neurons = bank.offsets.back();
    bank.gate_up = randn({2 * neurons, kHidden}) * 0.2;
    bank.down = randn({neurons, kHidden}) * 0.2;
    bank.gate_up_bias = randn({2 * neurons});
    bank.constant = randn({bank.size(), kHidden});
    x = randn({kTokens, kHidden});
    dy = randn({kTokens, kHidden});
    // The second expert has no tokens.
    selected = at::randint(
        bank.size() - 1, {kTokens, 1}, generator, at::dtype(at::kLong));
    selected = at::cat({selected, (selected + 1) % (bank.size() - 1)}, 1);
    selected.add_(selected.ge(1));
    weights = at::rand({kTokens, 2}, generator, at::kFloat);
  }

  Found run(at::Device device, at::ScalarType type, bool tapped) const {
    const auto there = [&](const at::Tensor& t) {
      return t.to(at::kBFloat16).to(device, type).set_requires_grad(true);
    };
    const ExpertBank own{
        bank.offsets,
        there(bank.gate_up),
        there(bank.down),
        there(bank.gate_up_bias),
        there(bank.constant)};
    const at::Tensor inputs = there(x);
    const at::Tensor mix = weights.clone().to(device).set_requires_grad(true);
    Sums sums(bank.size());
    const at::Tensor y = experts_forward(
        {0, own, tapped ? &sums : nullptr}, inputs, {selected.to(device), mix});
    y.backward(dy.to(at::kBFloat16).to(device, type));
    return {
        {y,
         inputs.grad(),
         mix.grad(),
         own.gate_up.grad(),
         own.down.grad(),
         own.gate_up_bias.grad(),
         own.constant.grad()},
        sums.forward,
        sums.backward};
  }

  ExpertBank bank;
  at::Tensor x, dy, selected, weights;
};

}  // namespace

TEST_CASE("experts together give what each gives alone", "[gpu]") {
  const auto device = card();
  if (!device) return;
  const bool tapped = GENERATE(false, true);
  const auto [type, tolerance] =
      GENERATE(std::pair(at::kFloat, 1e-5), std::pair(at::kBFloat16, 2e-2));
  const auto widths = GENERATE(
      std::vector<std::int64_t>{16, 16, 16, 16, 16},
      std::vector<std::int64_t>{16, 16, 8, 8, 24},
      std::vector<std::int64_t>{5, 5, 0, 5, 5});
  const Inputs inputs(widths);
  const Found known = inputs.run(at::kCPU, at::kFloat, tapped);
  const Found found = inputs.run(*device, type, tapped);
  for (std::size_t i = 0; i < known.tensors.size(); ++i) {
    INFO("tensor " << i);
    const at::Tensor& expected = known.tensors[i];
    const at::Tensor error =
        (found.tensors[i].cpu().to(at::kFloat) - expected).abs().max();
    CHECK(
        error.item<double>() <=
        tolerance * expected.abs().max().item<double>());
  }
  for (std::size_t e = 0; e < widths.size(); ++e) {
    INFO("expert " << e);
    CHECK(found.forward[e] == Approx(known.forward[e]).epsilon(2 * tolerance));
    CHECK(
        found.backward[e] == Approx(known.backward[e]).epsilon(2 * tolerance));
  }
  CHECK((known.forward[1] == 0 && known.tensors[3].defined()));
}

}  // namespace fettle::model
