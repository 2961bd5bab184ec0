// SPDX-License-Identifier: Apache-2.0
// Experts that are read one by one give what those of whole layers give, in
// the forward pass and in the backward pass.
#include <catch2/catch.hpp>

#include "runs.h"

namespace fettle::analyze {
namespace {

using fettle::testing::random_data;
using fettle::testing::TinyModel;
using fettle::testing::TinyModelOptions;

TinyModelOptions ragged() {
  TinyModelOptions options;
  options.widths = {{6, 0, 3, 5}, {1, 6, 6, 2}};
  options.constants = true;
  return options;
}

TEST_CASE("Experts apart have the scores of whole layers") {
  const TinyModelOptions options = GENERATE(
      ragged(),
      TinyModelOptions{.family = "gpt_oss"},
      TinyModelOptions{.family = "nemotron_h"},
      TinyModelOptions{.family = "qwen2_moe", .type = at::kBFloat16});
  const TinyModel tiny(options);
  CAPTURE(options.family);
  const auto data = random_data(6, 9, 11);
  const AnalyzeOptions how{.scores = testing::kAll, .micro_batch_tokens = 20};
  model::CausalLm apart(tiny.path(), {.experts_apart = true});
  for (std::int64_t l = 0; l < tiny.config().num_layers(); ++l) {
    if (!tiny.config().layers[l].sparse) continue;
    const model::ExpertBank bank = apart.acquire(l, -1)->experts;
    CHECK(bank.is_apart());
    CHECK_FALSE(bank.gate_up.defined());
  }
  testing::require_equal(
      testing::run(tiny, data, how), analyze(apart, data, how), 0);
}

}  // namespace
}  // namespace fettle::analyze
