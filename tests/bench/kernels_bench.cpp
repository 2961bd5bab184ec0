// SPDX-License-Identifier: Apache-2.0
// Each op against the ATen operations it replaces and against a copy in memory,
// as JSON.
//   fettle_bench_kernels [--threads N] [--bf16] [--device cuda]
//
// `seconds` and `aten_seconds` are medians of interleaved runs. `bytes` is what
// an op must read and write, so `of_memcpy` is its share of the bandwidth that
// memcpy reaches on an array too large for the caches. Shapes are those of a
// micro-batch: small enough that malloc reuses memory, where larger results
// would mostly measure the kernel's zeroing of fresh pages. On a card they are
// 32 times that, more than its caches hold. Packed matrices are large, as
// weights are that come from memory, and write where they are told.
#include <c10/core/impl/VirtualGuardImpl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <string_view>

#include "core/json.h"
#include "kernels/attention.h"
#include "kernels/cross_entropy.h"
#include "kernels/device_backend.h"
#include "kernels/expert_rows.h"
#include "kernels/packed_matrix.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "kernels_case.h"

namespace {

using namespace fettle::bench;
using namespace fettle::kernels;
using at::Tensor;

constexpr std::int64_t kHidden = 2048, kWidth = 768;
constexpr std::int64_t kTopK = 8, kVocab = 32000;
constexpr std::int64_t kHeads = 16, kHead = 128;

void wait_for(at::Device device) {
  if (device.is_cpu()) return;
  c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
}

double seconds(at::Device device, const std::function<void()>& f) {
  wait_for(device);
  const auto start = std::chrono::steady_clock::now();
  f();
  wait_for(device);
  const std::chrono::duration<double> spent =
      std::chrono::steady_clock::now() - start;
  return spent.count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Bytes read and written a second, by as many threads as ATen uses.
double memcpy_rate(const Bench& bench) {
  const std::int64_t rows = bench.type.device().is_cpu() ? 64 : 256;
  const Tensor from = at::ones({rows, 1 << 20}, bench.wide());
  const Tensor to = at::empty_like(from);
  std::vector<double> runs;
  for (int i = 0; i < 7; ++i) {
    runs.push_back(seconds(from.device(), [&] { to.copy_(from); }));
  }
  return 2.0 * static_cast<double>(from.nbytes()) / median(runs);
}

void add_norm(std::vector<Case>& cases, const Bench& bench) {
  const Tensor x = at::randn({bench.tokens, kHidden}, bench.type);
  const Tensor w = at::randn({kHidden}, bench.type), dy = at::randn_like(x);
  const std::string shape = fmt::format("[{}, 2048]", bench.tokens);
  const Tensor rstd = rms_norm(x, w, 1e-6).rstd;
  const auto bytes = static_cast<double>(x.nbytes());
  const auto normed = [=] {
    const Tensor wide = x.to(at::kFloat);
    const Tensor hat = wide * at::rsqrt(wide.pow(2).mean(-1, true) + 1e-6);
    return w * hat.to(x.scalar_type());
  };
  cases.push_back(
      {"rms_norm",
       shape,
       2 * bytes,
       [=] { rms_norm(x, w, 1e-6); },
       [=] { normed(); }});
  cases.push_back(
      {"rms_norm_backward",
       shape,
       3 * bytes,
       [=] { rms_norm_backward(dy, x, w, rstd, {.weight_gradient = true}); },
       [=] {
         const Tensor scale = rstd.unsqueeze(1);
         const Tensor hat = x * scale, g = dy * w;
         const Tensor dw = (dy * hat).sum(0);
         const Tensor dx = scale * (g - hat * (g * hat).mean(-1, true));
       }});
}

void add_swiglu(std::vector<Case>& cases, const Bench& bench) {
  const Tensor x = at::randn({bench.tokens, 2 * kWidth}, bench.type);
  const Tensor dh = at::randn({bench.tokens, kWidth}, bench.type);
  const std::string shape = fmt::format("[{}, 2·768]", bench.tokens);
  const auto bytes = static_cast<double>(dh.nbytes());
  cases.push_back(
      {"swiglu",
       shape,
       3 * bytes,
       [=] { swiglu(x); },
       [=] {
         const auto halves = x.chunk(2, 1);
         at::silu(halves[0]) * halves[1];
       }});
  cases.push_back(
      {"swiglu_backward",
       shape,
       5 * bytes,
       [=] { swiglu_backward(dh, x); },
       [=] {
         const auto halves = x.chunk(2, 1);
         const Tensor act = at::silu(halves[0]);
         const Tensor d_gate = at::silu_backward(dh * halves[1], halves[0]);
         at::cat({d_gate, dh * act}, 1);
       }});
}

void add_rows(std::vector<Case>& cases, const Bench& bench) {
  const std::int64_t tokens = bench.tokens / 4, m = tokens * kTopK;
  const Tensor x = at::randn({tokens, kHidden}, bench.type);
  const Tensor order = at::randperm(m, bench.index());  // row of each choice
  const Tensor position = order.reshape({tokens, kTopK});
  const Tensor index = at::empty_like(order)
                           .index_put_({order}, at::arange(m, bench.index()))
                           .floor_divide(kTopK);
  const Tensor rows = gather_rows(x, index);
  const Tensor weights = at::rand({tokens, kTopK}, bench.wide());
  const Tensor by_row =
      at::empty({m}, bench.wide()).index_put_({order}, weights.flatten());
  const auto narrow = static_cast<double>(x.nbytes());
  const auto wide = static_cast<double>(rows.nbytes());
  const std::string shape = fmt::format("{} tokens, 8 choices, 2048", tokens);
  cases.push_back(
      {"gather_rows",
       shape,
       2 * wide,
       [=] { gather_rows(x, index); },
       [=] { x.index_select(0, index); }});
  cases.push_back(
      {"gather_rows_backward",
       shape,
       wide + narrow,
       [=] { gather_rows_backward(rows, position); },
       [=] { at::zeros_like(x).index_add_(0, index, rows); }});
  cases.push_back(
      {"combine",
       shape,
       wide + narrow,
       [=] { combine(rows, position, weights); },
       [=] {
         const Tensor weighed =
             rows * by_row.unsqueeze(1).to(rows.scalar_type());
         at::zeros_like(x).index_add_(0, index, weighed);
       }});
  cases.push_back(
      {"combine_backward",
       shape,
       2 * wide + narrow,
       [=] { combine_backward(x, rows, position, weights); },
       [=] {
         const Tensor dy = x.index_select(0, index);
         const Tensor d_rows = dy * by_row.unsqueeze(1).to(rows.scalar_type());
         const Tensor d_weights = (dy * rows).sum(1);
       }});
}

void add_cross_entropy(std::vector<Case>& cases, const Bench& bench) {
  const std::int64_t scored = bench.tokens / 8;
  const Tensor logits = at::randn({scored, kVocab}, bench.type);
  const Tensor targets = at::randint(kVocab, {scored}, bench.index());
  const std::string shape = fmt::format("[{}, 32000]", scored);
  const auto bytes = static_cast<double>(logits.nbytes());
  const auto picked = [=](const Tensor& log_p) {
    return -log_p.gather(1, targets.unsqueeze(1)).squeeze(1);
  };
  cases.push_back(
      {"cross_entropy",
       shape,
       bytes,
       [=] { cross_entropy(logits, targets); },
       [=] { picked(at::log_softmax(logits, 1)); }});
  // Both overwrite a copy, or the second run would score gradients.
  const Tensor scratch = at::empty_like(logits);
  cases.push_back(
      {"cross_entropy_with_gradient_",
       shape + ", with a copy",
       4 * bytes,
       [=] {
         Tensor copy = scratch.copy_(logits);
         cross_entropy_with_gradient_(copy, targets, 0.5);
       },
       [=] {
         Tensor copy = scratch.copy_(logits);
         const Tensor log_p = at::log_softmax(copy, 1);
         picked(log_p);
         Tensor d = log_p.exp();
         d.scatter_add_(
             1, targets.unsqueeze(1), at::full({scored, 1}, -1.0, d.options()));
         d.mul_(0.5);
       }});
}

void add_rope(std::vector<Case>& cases, const Bench& bench) {
  const Tensor q = at::randn({bench.tokens, kHeads, kHead}, bench.type);
  const Tensor angles = at::randn({bench.tokens, kHead / 2}, bench.wide());
  const std::string shape = fmt::format("[{}, 16, 128]", bench.tokens);
  const Tensor cos = angles.cos(), sin = angles.sin();
  const Tensor wide_cos =
      at::cat({cos, cos}, 1).unsqueeze(1).to(q.scalar_type());
  const Tensor wide_sin =
      at::cat({sin, sin}, 1).unsqueeze(1).to(q.scalar_type());
  const auto bytes = static_cast<double>(q.nbytes());
  const auto aten = [=] {
    const auto halves = q.chunk(2, 2);
    const Tensor turned = at::cat({-halves[1], halves[0]}, 2);
    q* wide_cos + turned* wide_sin;
  };
  const RopeOptions pairs{.pairing = RopePairing::kInterleaved};
  cases.push_back({"rope", shape, 2 * bytes, [=] { rope(q, cos, sin); }, aten});
  cases.push_back(
      {"rope_interleaved",
       shape,
       2 * bytes,
       [=] { rope(q, cos, sin, pairs); },
       aten});
}

// float32 on the CPU only. Two query heads read one key head, as in most
// families; ATen wants keys and values repeated.
void add_attention(std::vector<Case>& cases) {
  constexpr std::int64_t batch = 2, length = 512, heads = 8, head = 64;
  constexpr std::int64_t tokens = batch * length;
  const Tensor q = at::randn({tokens, heads, head});
  const Tensor k = at::randn({tokens, heads / 2, head});
  const Tensor v = at::randn_like(k), dy = at::randn_like(q);
  const AttentionOptions options{{0, length, tokens}, 0, 0.125};
  const Attention out = attention(q, k, v, options);
  const auto batched = [=](const Tensor& x) {
    return x.view({batch, length, x.size(1), head})
        .transpose(1, 2)
        .repeat_interleave(heads / x.size(1), 1);
  };
  const auto fused = [=] {
    return at::_scaled_dot_product_flash_attention_for_cpu(
        batched(q), batched(k), batched(v), 0.0, true, {}, 0.125);
  };
  const auto kept = fused();
  const auto bytes = static_cast<double>(2 * q.nbytes() + 2 * k.nbytes());
  cases.push_back(
      {"attention",
       "2 x 512 tokens, 8 heads of 64",
       bytes,
       [=] { attention(q, k, v, options); },
       [=] { fused(); }});
  cases.push_back(
      {"attention_backward",
       "2 x 512 tokens, 8 heads of 64",
       2 * bytes,
       [=] { attention_backward(dy, out, q, k, v, options); },
       [=] {
         at::_scaled_dot_product_flash_attention_for_cpu_backward(
             batched(dy),
             batched(q),
             batched(k),
             batched(v),
             std::get<0>(kept),
             std::get<1>(kept),
             0.0,
             true,
             {},
             0.125);
       }});
}

PackedMatrix packed(
    const Bench& bench,
    std::int64_t bits,
    std::int64_t rows,
    std::int64_t cols) {
  const auto kind = bits == 0 ? PackedKind::kTernary : PackedKind::kInt;
  const std::int64_t size = rows * packed_row_bytes(kind, bits, cols);
  return {
      .kind = kind,
      .bits = bits,
      .rows = rows,
      .cols = cols,
      .group = 128,
      .codes = at::randint(243, {size}, bench.type.dtype(at::kByte)),
      .scales = at::ones({rows, cols / 128}, bench.type.dtype(at::kBFloat16))};
}

// Unpacking against a copy of what is unpacked, and products against those of
// the same matrix in float32, which is larger than any cache.
void add_packed(std::vector<Case>& cases, const Bench& bench) {
  constexpr std::int64_t rows = 32768, cols = kHidden;
  constexpr auto weights = static_cast<double>(rows * cols);
  const Tensor dense = at::empty({rows, cols}, bench.type).fill_(1);
  const Tensor out = at::empty_like(dense);
  const Tensor plain = dense.to(at::kFloat);
  const Tensor x = at::randn({1, cols}, bench.wide());
  const Tensor y = at::empty({1, rows}, bench.wide());
  const Tensor flat = x[0];
  for (const std::int64_t bits : {2, 3, 4, 8, 0}) {
    const PackedMatrix m = packed(bench, bits, rows, cols);
    const auto bytes = static_cast<double>(m.bytes());
    const std::string shape =
        "[32768, 2048], " +
        (bits == 0 ? "trits" : std::to_string(bits) + " bits");
    cases.push_back(
        {"unpack_rows",
         shape,
         bytes + static_cast<double>(out.nbytes()),
         [=] { unpack_rows(m, 0, out); },
         [=] {
           Tensor to = out;
           to.copy_(dense);
         },
         weights});
    cases.push_back(
        {"packed_products",
         shape,
         bytes,
         [=] {
           const PackedProduct product{&m, x, y};
           packed_products({&product, 1});
         },
         [=] { at::mv(plain, flat); },
         weights});
  }
}

fettle::Json measure(const Case& c, at::Device device, double rate) {
  constexpr int kRuns = 11;
  std::vector<double> ours, theirs;
  c.op();
  c.aten();
  for (int i = 0; i < kRuns; ++i) {
    ours.push_back(seconds(device, c.op));
    theirs.push_back(seconds(device, c.aten));
  }
  const double op = median(ours), aten = median(theirs);
  fettle::Json report = {
      {"op", c.name},
      {"shape", c.shape},
      {"seconds", op},
      {"aten_seconds", aten},
      {"speedup", aten / op},
      {"of_memcpy", c.bytes / op / rate}};
  if (c.weights > 0) report["weights_per_second"] = c.weights / op;
  return report;
}

}  // namespace

int main(int argc, char** argv) {
  Bench bench;
  for (int i = 1; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--bf16") {
      bench.type = bench.type.dtype(at::kBFloat16);
    } else if (option == "--threads" && i + 1 < argc) {
      at::set_num_threads(std::max(1, std::atoi(argv[++i])));
    } else if (option == "--device" && i + 1 < argc) {
      bench.type =
          bench.type.device(open_device(fettle::parse_device(argv[++i])));
    } else {
      std::cerr << "usage: fettle_bench_kernels [--threads N] [--bf16] "
                   "[--device cpu|cuda]\n";
      return 2;
    }
  }
  const at::Device device = bench.type.device();
  if (!device.is_cpu()) bench.tokens *= 32;
  at::NoGradGuard no_gradients;
  const double rate = memcpy_rate(bench);
  std::vector<Case> cases;
  add_norm(cases, bench);
  add_swiglu(cases, bench);
  add_rows(cases, bench);
  add_cross_entropy(cases, bench);
  add_rope(cases, bench);
  if (device.is_cpu()) add_attention(cases);
  add_mixers(cases, bench);
  add_packed(cases, bench);
  fettle::Json report = {
      {"threads", at::get_num_threads()},
      {"device", device.str()},
      {"dtype", at::toString(c10::typeMetaToScalarType(bench.type.dtype()))},
      {"memcpy_bytes_per_second", rate}};
  for (const Case& c : cases) report["ops"].push_back(measure(c, device, rate));
  std::cout << report.dump(2) << '\n';
}
