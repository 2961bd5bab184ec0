// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "kernels/causal_conv1d.h"
#include "kernels/scan_products.h"
#include "kernels_case.h"

namespace fettle::bench {
namespace {

using namespace fettle::kernels;

// The convolution before a gated delta rule, against ATen's.
void add_convolution(std::vector<Case>& cases, const Bench& bench) {
  constexpr std::int64_t channels = 4096, taps = 4;
  const Tensor x = at::randn({bench.tokens, channels}, bench.type);
  const Tensor w = at::randn({channels, taps}, bench.type);
  const Tensor dy = at::randn_like(x);
  const ConvolutionWeights weights{w, {}};
  const ConvolutionOptions options{{0, bench.tokens}, true, {}};
  const std::vector<std::int64_t> one{1}, padding{taps - 1};
  const auto convolved = [=] {
    const Tensor turned = x.t().unsqueeze(0);
    return at::conv1d(turned, w.unsqueeze(1), {}, one, padding, one, channels)
        .narrow(2, 0, x.size(0));
  };
  const std::string shape = fmt::format("[{}, 4096], 4 taps", bench.tokens);
  const auto bytes = static_cast<double>(x.nbytes());
  cases.push_back(
      {"causal_conv1d",
       shape,
       2 * bytes,
       [=] { causal_conv1d(x, weights, options); },
       [=] { at::silu(convolved()).squeeze(0).t().contiguous(); }});
  cases.push_back(
      {"causal_conv1d_backward",
       shape,
       3 * bytes,
       [=] { causal_conv1d_backward(dy, x, weights, options); },
       [=] {
         const Tensor dz = at::silu_backward(dy.t().unsqueeze(0), convolved());
         at::convolution_backward(
             dz,
             at::constant_pad_nd(x.t().unsqueeze(0), {taps - 1, 0}),
             w.unsqueeze(1),
             c10::nullopt,
             one,
             {0},
             one,
             false,
             {0},
             channels,
             {true, true, false});
       }});
}

// Heads of Qwen3-Next and of Mamba-2, against batched products over chunks.
void add_scan(std::vector<Case>& cases, const Bench& bench, bool delta) {
  const std::int64_t tokens = bench.tokens, heads = delta ? 8 : 16;
  const std::int64_t key_heads = delta ? 4 : 2, values = delta ? 128 : 64;
  const ScanInputs in{
      at::randn({tokens, key_heads, 128}, bench.wide()),
      at::randn({tokens, key_heads, 128}, bench.wide()),
      at::randn({tokens, heads, values}, bench.wide()),
      -at::rand({tokens, heads}, bench.wide()),
      at::rand({tokens, heads}, bench.wide()),
      {}};
  const Tensor dy = at::randn_like(in.v);
  const std::vector<std::int64_t> starts{0, tokens};
  const auto run = [=](auto forward) {
    const Tensor none;
    const ScanOptions options{
        .delta = delta, .eps = 1e-6, .starts = starts, .state = none};
    forward(options);
  };
  const std::string name = delta ? "gated_delta" : "selective_scan";
  const std::string shape =
      fmt::format("{} tokens, {} heads of {}", tokens, heads, values);
  const auto bytes = static_cast<double>(2 * in.v.nbytes() + 2 * in.q.nbytes());
  cases.push_back(
      {name,
       shape,
       bytes,
       [=] { run([&](const auto& o) { scan(in, o); }); },
       [=] { run([&](const auto& o) { scan_products(in, o); }); }});
  cases.push_back(
      {name + "_backward",
       shape,
       2 * bytes,
       [=] { run([&](const auto& o) { scan_backward(dy, in, o); }); },
       [=] {
         run([&](const auto& o) { scan_products_backward(dy, in, o); });
       }});
}

}  // namespace

void add_mixers(std::vector<Case>& cases, const Bench& bench) {
  add_convolution(cases, bench);
  add_scan(cases, bench, true);
  add_scan(cases, bench, false);
}

}  // namespace fettle::bench
