// SPDX-License-Identifier: Apache-2.0
#include "kernels/selective_scan.h"

#include <torch/csrc/autograd/autograd.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "core/error.h"
#include "device_case.h"

namespace fettle::kernels {
namespace {

using namespace test;

const DeviceCase kScanCase{at::kCPU, at::kFloat, 1e-5, "float32 on the CPU"};

struct ScanShape {
  std::int64_t groups, heads, head_size, state_size;
};

// The recurrence, token by token, on tensors of one sequence in float64.
at::Tensor recurrent_scan(const SelectiveScanInputs& in) {
  const std::int64_t heads = in.x.size(1);
  const auto of_heads = [&](const at::Tensor& t) {
    return t.repeat_interleave(heads / t.size(1), 1);
  };
  const at::Tensor b = of_heads(in.b), c = of_heads(in.c);
  at::Tensor state =
      at::zeros({heads, in.b.size(2), in.x.size(2)}, in.x.options());
  std::vector<at::Tensor> outs;
  for (std::int64_t n = 0; n < in.x.size(0); ++n) {
    const at::Tensor dt = in.dt[n].view({-1, 1, 1});
    state = state * (dt * in.a.view({-1, 1, 1})).exp() +
            dt * b[n].unsqueeze(-1) * in.x[n].unsqueeze(1);
    outs.push_back(
        (state * c[n].unsqueeze(-1)).sum(1) + in.d.unsqueeze(-1) * in.x[n]);
  }
  return at::stack(outs);
}

at::Tensor scanned(
    const SelectiveScanInputs& in, const std::vector<std::int64_t>& starts) {
  std::vector<at::Tensor> outs;
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) {
    const std::int64_t length = starts[s + 1] - starts[s];
    if (length == 0) continue;
    const auto part = [&](const at::Tensor& x) {
      return x.narrow(0, starts[s], length);
    };
    outs.push_back(recurrent_scan(
        {part(in.x), part(in.dt), in.a, part(in.b), part(in.c), in.d}));
  }
  return at::cat(outs, 0);
}

SelectiveScanInputs random_scan(
    std::int64_t tokens, const ScanShape& shape, const DeviceCase& where) {
  const DeviceCase wide{at::kCPU, at::kFloat, 0, ""};
  return {
      values({tokens, shape.heads, shape.head_size}, 1, where),
      values({tokens, shape.heads}, 2, wide).exp_(),
      values({shape.heads}, 3, wide).exp_().neg_(),
      values({tokens, shape.groups, shape.state_size}, 4, where),
      values({tokens, shape.groups, shape.state_size}, 5, where),
      values({shape.heads}, 6, wide)};
}

SelectiveScanInputs scan_on(
    const SelectiveScanInputs& in, const DeviceCase& where) {
  return {
      on(where, in.x),
      in.dt.to(where.device),
      in.a.to(where.device),
      on(where, in.b),
      on(where, in.c),
      in.d.to(where.device)};
}

// A gradient may cancel in a row: its error is as large as others make it, so
// the bound takes the root mean square of all.
at::Tensor flat(const at::Tensor& x) { return x.reshape({1, -1}); }

void check_scan_shape(const DeviceCase& where, const ScanShape& shape) {
  CAPTURE(where.name, shape.groups, shape.heads);
  CAPTURE(shape.head_size, shape.state_size);
  // One token, none, a few, around a chunk, and chunks with a rest.
  const SelectiveScanOptions options{{0, 1, 1, 4, 67, 131, 196, 350}, {}};
  const std::int64_t n = options.starts.back();
  const SelectiveScanInputs in = random_scan(n, shape, where);
  const at::Tensor dy = values({n, shape.heads, shape.head_size}, 7, where);
  const auto deep = [](const at::Tensor& x) {
    return x.to(at::kDouble).requires_grad_();
  };
  const SelectiveScanInputs wide{
      deep(in.x), deep(in.dt), deep(in.a), deep(in.b), deep(in.c), deep(in.d)};
  const at::Tensor truth = scanned(wide, options.starts);
  const auto grads = torch::autograd::grad(
      {truth},
      {wide.x, wide.dt, wide.a, wide.b, wide.c, wide.d},
      {dy.to(at::kDouble)});
  const SelectiveScanInputs inputs = scan_on(in, where);
  const at::Tensor got = selective_scan(inputs, options);
  CHECK(got.scalar_type() == where.dtype);
  check_close(flat(got), flat(truth), where);
  const auto back = selective_scan_backward(on(where, dy), inputs, options);
  check_close(flat(back.dx), flat(grads[0]), where);
  check_close(flat(back.ddt), flat(grads[1]), where);
  check_close(flat(back.da), flat(grads[2]), where);
  check_close(flat(back.db), flat(grads[3]), where);
  check_close(flat(back.dc), flat(grads[4]), where);
  check_close(flat(back.dd), flat(grads[5]), where);
}

void check_scans(const DeviceCase& where) {
  check_scan_shape(where, {1, 2, 16, 16});
  check_scan_shape(where, {2, 4, 24, 32});
  check_scan_shape(where, {1, 19, 5, 7});  // more heads than a task takes
}

// Tokens by turns, with the states that each turn leaves for the next.
void check_scan_steps(const DeviceCase& where) {
  CAPTURE(where.name);
  const SelectiveScanInputs in =
      scan_on(random_scan(140, {1, 2, 8, 16}, where), where);
  const at::Tensor whole = selective_scan(in, {{0, 140}, {}});
  const at::Tensor state = at::zeros({2, 2, 16, 8}, in.dt.options());
  std::int64_t from = 0;
  for (const std::int64_t length : {1, 2, 65, 1, 71}) {
    const auto twice = [&](const at::Tensor& x) {
      const at::Tensor part = x.narrow(0, from, length);
      return at::cat({part, part});
    };
    const at::Tensor y = selective_scan(
        {twice(in.x), twice(in.dt), in.a, twice(in.b), twice(in.c), in.d},
        {{0, length, 2 * length}, state});
    for (const std::int64_t half : {std::int64_t{0}, length}) {
      check_close(
          flat(y.narrow(0, half, length)),
          flat(whole.narrow(0, from, length)).to(at::kDouble),
          where);
    }
    from += length;
  }
}

}  // namespace

TEST_CASE("a scan without decay sums what is written") {
  const at::Tensor one = at::ones({150, 1, 1});
  const at::Tensor y = selective_scan(
      {one, at::ones({150, 1}), at::zeros({1}), one, one, at::zeros({1})},
      {{0, 100, 150}, {}});
  const at::Tensor counts = at::cat({at::arange(1, 101), at::arange(1, 51)});
  CHECK(at::allclose(y.flatten(), counts.to(at::kFloat), 1e-6));
}

TEST_CASE("a scan of steps of no length gives the inputs that skip it") {
  const SelectiveScanInputs random = random_scan(70, {1, 2, 4, 4}, kScanCase);
  SelectiveScanInputs in = random;
  in.dt = at::zeros_like(random.dt);
  in.d = at::tensor({1.0f, 2.0f});
  const at::Tensor y = selective_scan(in, {{0, 70}, {}});
  CHECK(at::equal(y, in.x * in.d.unsqueeze(-1)));
}

TEST_CASE("a selective scan and its gradients are the recurrence's") {
  for (const auto& where : cpu_cases()) check_scans(where);
}

TEST_CASE("a selective scan goes on from its states") {
  for (const auto& where : cpu_cases()) check_scan_steps(where);
}

TEST_CASE("a selective scan has the same bits on any number of threads") {
  const SelectiveScanInputs in = random_scan(300, {1, 20, 16, 16}, kScanCase);
  const SelectiveScanOptions options{{0, 90, 300}, {}};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = selective_scan(in, options);
  const auto alone = selective_scan_backward(one, in, options);
  at::set_num_threads(3);
  const at::Tensor three = selective_scan(in, options);
  const auto together = selective_scan_backward(three, in, options);
  at::set_num_threads(threads);
  CHECK(same_bits(one, three));
  CHECK(same_bits(alone.dx, together.dx));
  CHECK(same_bits(alone.ddt, together.ddt));
  CHECK(same_bits(alone.da, together.da));
  CHECK(same_bits(alone.db, together.db));
  CHECK(same_bits(alone.dc, together.dc));
  CHECK(same_bits(alone.dd, together.dd));
}

TEST_CASE("a selective scan of no tokens is empty") {
  const SelectiveScanInputs in = random_scan(0, {1, 2, 4, 4}, kScanCase);
  const SelectiveScanOptions options{{0}, {}};
  const at::Tensor y = selective_scan(in, options);
  CHECK(y.sizes() == in.x.sizes());
  const auto back = selective_scan_backward(y, in, options);
  CHECK(at::equal(back.dd, at::zeros({2})));
  CHECK(at::equal(back.da, at::zeros({2})));
}

TEST_CASE("a selective scan refuses what does not fit") {
  const SelectiveScanOptions options{{0, 6}, {}};
  const SelectiveScanInputs good = random_scan(6, {2, 4, 8, 8}, kScanCase);
  const auto refuses = [](const SelectiveScanInputs& in,
                          const SelectiveScanOptions& how) {
    CHECK_THROWS_AS(selective_scan(in, how), InternalError);
  };
  const auto refuses_part = [&](at::Tensor SelectiveScanInputs::*part,
                                const at::Tensor& bad) {
    SelectiveScanInputs in = good;
    in.*part = bad;
    refuses(in, options);
  };
  using In = SelectiveScanInputs;
  refuses_part(&In::x, at::ones({6, 3, 8}));
  refuses_part(&In::x, at::ones({6, 32}));
  refuses_part(&In::x, good.x.to(at::kDouble));
  refuses_part(&In::a, at::ones({3}));
  refuses_part(&In::b, at::ones({6, 2, 7}));
  refuses_part(&In::b, good.b.to(at::kBFloat16));
  refuses_part(&In::c, at::ones({5, 2, 8}));
  refuses_part(&In::d, at::ones({5}));
  refuses_part(&In::d, {});
  refuses(good, {{0, 5}, {}});
  refuses(good, {{0, 6}, at::zeros({1, 4, 8, 7})});
  CHECK_THROWS_AS(
      selective_scan_backward(at::ones({6, 4, 7}), good, options),
      InternalError);
  CHECK_THROWS_AS(
      selective_scan_backward(good.x, good, {{0, 6}, at::zeros({1, 4, 8, 8})}),
      InternalError);
}

TEST_CASE("a selective scan is the recurrence on a GPU", "[gpu]") {
  for (const auto& where : gpu_cases()) {
    check_scan_shape(where, {2, 4, 8, 16});
    if (where.dtype == at::kFloat) check_scan_steps(where);
  }
}

}  // namespace fettle::kernels
