// SPDX-License-Identifier: Apache-2.0
// With L_i the sum of g up to token i of a chunk and S its first state, what is
// written solves (1 + T) U = R by the delta rule:
//   T_ij = w_i e^(L_i - L_j) k_i·k_j for j < i,  R_i = w_i (v_i - e^L_i Sᵀ
//   k_i);
// else u_i is w_i v_i. Then o_i = e^L_i Sᵀ q_i + Σ_{j ≤ i} P_ij u_j with
// P_ij = e^(L_i - L_j) q_i·k_j, and the next state is e^L S +
// Σ_j e^(L - L_j) k_j u_jᵀ, L being the last L_i.
#include "kernels/scan_products.h"

#include <limits>

#include "kernels/chunk_order.h"
#include "kernels/mixer_args.h"

namespace fettle::kernels {
namespace {

at::Tensor turned(const at::Tensor& x) { return x.transpose(-1, -2); }

// Queries or keys, by the delta rule of length 1 (or below it, by eps), and
// what they were scaled by.
struct UnitRows {
  at::Tensor rows, scale;
};

UnitRows unit_rows(const at::Tensor& x, const ScanOptions& options) {
  if (!options.delta) return {x, {}};
  const at::Tensor squares = x.pow(2).sum(-1, true);
  const at::Tensor scale = (squares + options.eps).rsqrt();
  return {x * scale, scale};
}

at::Tensor unit_rows_backward(const at::Tensor& d_rows, const UnitRows& unit) {
  if (!unit.scale.defined()) return d_rows;
  const at::Tensor along = (d_rows * unit.rows).sum(-1, true);
  return unit.scale * (d_rows - unit.rows * along);
}

// M chunks of C tokens; Hk key heads with r value heads each.
struct Chunks {
  at::Tensor q, k;        // [M, Hk, 1, C, Dk]
  at::Tensor v;           // [M, Hk, r, C, Dv]
  at::Tensor w;           // [M, Hk, r, C, 1]
  at::Tensor decay;       // [M, Hk, r, C, C], e^(L_i - L_j) for j ≤ i
  at::Tensor from_start;  // [M, Hk, r, C, 1], e^L_i
  at::Tensor to_end;      // [M, Hk, r, C, 1], e^(L - L_j)
  at::Tensor over;        // [M, Hk, r, 1, 1], e^L
  at::Tensor p, t;        // [M, Hk, r, C, C]; t of the delta rule alone
};

constexpr at::Tensor Chunks::*kChunkTensors[] = {
    &Chunks::q,
    &Chunks::k,
    &Chunks::v,
    &Chunks::w,
    &Chunks::decay,
    &Chunks::from_start,
    &Chunks::to_end,
    &Chunks::over,
    &Chunks::p,
    &Chunks::t};

// [N, heads, ...] as [M, Hk, heads / Hk, C, ...].
at::Tensor by_head(
    const ChunkOrder& order, const at::Tensor& x, std::int64_t key_heads) {
  return order.gather(x)
      .unflatten(2, {key_heads, x.size(1) / key_heads})
      .movedim(1, 3)
      .contiguous();
}

// The reverse of by_head().
at::Tensor by_token(const ChunkOrder& order, const at::Tensor& x) {
  return order.scatter(x.movedim(3, 1).flatten(2, 3).contiguous());
}

Chunks chunks_of(
    const ChunkOrder& order,
    const at::Tensor& q,
    const at::Tensor& k,
    const ScanInputs& inputs,
    const ScanOptions& options) {
  Chunks c;
  const std::int64_t heads = q.size(1);
  c.q = by_head(order, q * options.scale, heads);
  c.k = by_head(order, k, heads);
  c.v = by_head(order, inputs.v, heads);
  c.w = by_head(order, inputs.write.unsqueeze(-1), heads);
  // In two parts: a strong decay must not cost the later ones their digits.
  const at::Tensor exact = by_head(order, inputs.g.unsqueeze(-1), heads)
                               .squeeze(-1)
                               .cumsum(-1, at::kDouble);
  const at::Tensor sum = exact.to(at::kFloat);
  const at::Tensor rest = (exact - sum).to(at::kFloat);
  const auto pairs = [](const at::Tensor& x) {
    return x.unsqueeze(-1) - x.unsqueeze(-2);
  };
  const at::Tensor later =
      at::ones({kScanChunk, kScanChunk}, q.options().dtype(at::kBool)).triu(1);
  c.decay = (pairs(sum) + pairs(rest))
                .masked_fill(later, -std::numeric_limits<float>::infinity())
                .exp();
  const at::Tensor last = sum.narrow(-1, kScanChunk - 1, 1);
  c.from_start = sum.exp().unsqueeze(-1);
  c.to_end = c.decay.select(-2, kScanChunk - 1).unsqueeze(-1);
  c.over = last.exp().unsqueeze(-1);
  c.p = at::matmul(c.q, turned(c.k)) * c.decay;
  if (options.delta) {
    c.t = (at::matmul(c.k, turned(c.k)) * c.decay).tril(-1) * c.w;
  }
  return c;
}

// The chunks of one step.
Chunks step_of(const Chunks& all, const ChunkOrder& order, std::int64_t step) {
  Chunks part;
  for (const auto tensor : kChunkTensors) {
    if (!(all.*tensor).defined()) continue;
    part.*tensor =
        (all.*tensor).narrow(0, order.first(step), order.count(step));
  }
  return part;
}

// What a chunk does with its first state.
struct Written {
  at::Tensor state;   // [m, Hk, r, Dk, Dv]
  at::Tensor read;    // [m, Hk, r, C, Dv], Sᵀ k, of the delta rule alone
  at::Tensor values;  // [m, Hk, r, C, Dv], U
};

Written write(const Chunks& c, const at::Tensor& state) {
  if (!c.t.defined()) return {state, {}, c.w * c.v};
  const at::Tensor read = at::matmul(c.k, state);
  const at::Tensor rest = c.w * (c.v - c.from_start * read);
  return {
      state,
      read,
      at::linalg_solve_triangular(
          c.t, rest, /*upper=*/false, /*left=*/true, /*unitriangular=*/true)};
}

at::Tensor next_state(const Chunks& c, const Written& w) {
  return c.over * w.state + at::matmul(turned(c.k * c.to_end), w.values);
}

at::Tensor zero_states(const Chunks& all, const ChunkOrder& order) {
  return at::zeros(
      {order.count(0),
       all.v.size(1),
       all.v.size(2),
       all.k.size(4),
       all.v.size(4)},
      all.v.options());
}

// The gradients of one step's chunks.
struct StepGradients {
  at::Tensor dq, dk;   // [m, Hk, r, C, Dk]
  at::Tensor dv;       // [m, Hk, r, C, Dv]
  at::Tensor dw;       // [m, Hk, r, C, 1]
  at::Tensor dg;       // [m, Hk, r, C], but for
  at::Tensor d_sum;    // that of L, which each token's g is in from it on
  at::Tensor d_state;  // of the chunks' first states
};

// Sums for each token over the products of pairs [i, j] that it lies between,
// j < token ≤ i. They are summed as they are, since differences of sums over L
// would cancel.
at::Tensor between(const at::Tensor& products) {
  return products.flip({-2}).cumsum(-2).flip({-2}).tril(-1).sum(-1);
}

// What the delta rule adds: tokens find what earlier ones and the state hold.
void add_found(
    const Chunks& c,
    const Written& w,
    const at::Tensor& d_rest,
    StepGradients& g) {
  const at::Tensor strict = c.decay.tril(-1);
  const at::Tensor products = at::matmul(c.k, turned(c.k));
  const at::Tensor d_products =
      at::matmul(g.dv, turned(w.values)).neg() * strict;
  const at::Tensor weighted = c.from_start * g.dv;
  g.dk += at::matmul(d_products + turned(d_products), c.k) -
          at::matmul(weighted, turned(w.state));
  const at::Tensor unscaled =
      c.v - c.from_start * w.read - at::matmul(products * strict, w.values);
  g.dw = (d_rest * unscaled).sum(-1, true);
  g.dg += between(d_products * products);
  g.d_sum -= (weighted * w.read).sum(-1);
  g.d_state -= at::matmul(turned(c.k), weighted);
}

StepGradients turn_step(
    const Chunks& c,
    const Written& w,
    const at::Tensor& dy,
    const at::Tensor& d_next) {
  const at::Tensor k_d_next = at::matmul(c.k, d_next);
  at::Tensor d_rest = at::matmul(turned(c.p), dy) + c.to_end * k_d_next;
  if (c.t.defined()) {
    d_rest = at::linalg_solve_triangular(
        turned(c.t),
        d_rest,
        /*upper=*/true,
        /*left=*/true,
        /*unitriangular=*/true);
  }
  const at::Tensor d_p = at::matmul(dy, turned(w.values));
  const at::Tensor read_dy = c.from_start * at::matmul(dy, turned(w.state));
  StepGradients g;
  g.dq = read_dy + at::matmul(d_p * c.decay, c.k);
  g.dk = at::matmul(turned(d_p * c.decay), c.q) +
         at::matmul(c.to_end * w.values, turned(d_next));
  g.dv = c.w * d_rest;
  const at::Tensor to_end = (c.to_end * w.values * k_d_next).sum(-1);
  g.dg = between(d_p * c.p) +
         at::constant_pad_nd(
             to_end.narrow(-1, 0, kScanChunk - 1).cumsum(-1), {1, 0});
  g.d_sum = (read_dy * c.q).sum(-1);
  g.d_sum.select(-1, kScanChunk - 1)
      .add_((c.over * w.state * d_next).sum({-1, -2}));
  g.d_state = c.over * d_next + at::matmul(turned(c.q), c.from_start * dy);
  if (c.t.defined()) {
    add_found(c, w, d_rest, g);
  } else {
    g.dw = (d_rest * c.v).sum(-1, true);
  }
  return g;
}

// The gradients of all chunks, from the last step to the first.
std::vector<StepGradients> turn_steps(
    const Chunks& all, const ChunkOrder& order, const at::Tensor& dy) {
  std::vector<Written> written;
  at::Tensor state = zero_states(all, order);
  at::Tensor d_next = at::zeros_like(state);
  for (std::int64_t step = 0; step < order.steps(); ++step) {
    const Chunks c = step_of(all, order, step);
    written.push_back(write(c, state.narrow(0, 0, order.count(step))));
    state = next_state(c, written.back());
  }
  std::vector<StepGradients> gradients(order.steps());
  for (std::int64_t step = order.steps() - 1; step >= 0; --step) {
    const std::int64_t count = order.count(step);
    gradients[step] = turn_step(
        step_of(all, order, step),
        written[step],
        dy.narrow(0, order.first(step), count),
        d_next.narrow(0, 0, count));
    d_next.narrow(0, 0, count).copy_(gradients[step].d_state);
    written.pop_back();
  }
  return gradients;
}

}  // namespace

at::Tensor scan_products(const ScanInputs& inputs, const ScanOptions& options) {
  const ChunkOrder order(options.starts, kScanChunk, inputs.q.device());
  const Chunks all = chunks_of(
      order,
      unit_rows(inputs.q, options).rows,
      unit_rows(inputs.k, options).rows,
      inputs,
      options);
  const at::Tensor states = zero_states(all, order);
  if (options.state.defined()) {
    states.copy_(
        options.state.index_select(0, order.sequences()).view(states.sizes()));
  }
  std::vector<at::Tensor> outs;
  for (std::int64_t step = 0; step < order.steps(); ++step) {
    const Chunks c = step_of(all, order, step);
    const at::Tensor state = states.narrow(0, 0, order.count(step));
    const Written w = write(c, state);
    outs.push_back(
        c.from_start * at::matmul(c.q, state) + at::matmul(c.p, w.values));
    state.copy_(next_state(c, w));
  }
  if (options.state.defined()) {
    options.state.index_copy_(0, order.sequences(), states.flatten(1, 2));
  }
  const at::Tensor out = by_token(order, at::cat(outs, 0));
  if (!inputs.skip.defined()) return out;
  return out + inputs.skip.unsqueeze(-1) * inputs.v;
}

ScanGradients scan_products_backward(
    const at::Tensor& d_out,
    const ScanInputs& inputs,
    const ScanOptions& options) {
  const ChunkOrder order(options.starts, kScanChunk, inputs.q.device());
  const UnitRows q = unit_rows(inputs.q, options);
  const UnitRows k = unit_rows(inputs.k, options);
  const Chunks all = chunks_of(order, q.rows, k.rows, inputs, options);
  const at::Tensor dy = by_head(order, d_out, inputs.q.size(1));
  const std::vector<StepGradients> steps = turn_steps(all, order, dy);
  const auto joined = [&](at::Tensor StepGradients::*part) {
    std::vector<at::Tensor> parts;
    for (const StepGradients& step : steps) parts.push_back(step.*part);
    return at::cat(parts, 0);
  };
  const auto of_keys = [&](at::Tensor StepGradients::*part) {
    return by_token(order, joined(part).sum(2, true));
  };
  const at::Tensor d_sum = joined(&StepGradients::d_sum);
  const at::Tensor dg =
      joined(&StepGradients::dg) + d_sum.flip({-1}).cumsum(-1).flip({-1});
  ScanGradients result{
      unit_rows_backward(of_keys(&StepGradients::dq) * options.scale, q),
      unit_rows_backward(of_keys(&StepGradients::dk), k),
      by_token(order, joined(&StepGradients::dv)),
      by_token(order, dg.unsqueeze(-1)).squeeze(-1),
      by_token(order, joined(&StepGradients::dw)).squeeze(-1),
      {}};
  if (inputs.skip.defined()) {
    result.dv += inputs.skip.unsqueeze(-1) * d_out;
    result.dskip = (d_out * inputs.v).sum(at::IntArrayRef{0, 2});
  }
  return result;
}

}  // namespace fettle::kernels
