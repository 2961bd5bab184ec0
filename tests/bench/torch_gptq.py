# SPDX-License-Identifier: Apache-2.0
"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) of many equally large matrices
at once in plain PyTorch, and the passes over a Qwen3-MoE that it needs."""

import torch


class Sweep:
    """Sequences on their way through the layers, all of them layer by layer.
    Shorter ones are filled up behind, where a causal model doesn't look."""

    def __init__(self, model, rows, batch=8):
        length = max(map(len, rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        real = torch.zeros(len(rows), length, dtype=torch.bool)
        for row, values in enumerate(rows):
            ids[row, :len(values)] = torch.tensor(values)
            real[row, :len(values)] = True
        self.real = [part.reshape(-1) for part in real.split(batch)]
        self.hidden = [model.model.embed_tokens(part)
                       for part in ids.split(batch)]
        self.rotary = model.model.rotary_emb(
            self.hidden[0], torch.arange(length)[None])

    def outputs(self, layer, before_batch=lambda real: None):
        for hidden, real in zip(self.hidden, self.real):
            before_batch(real)
            yield layer(hidden, position_embeddings=self.rotary)

    def advance(self, layer):
        self.hidden = list(self.outputs(layer))


class Moments:
    """Sums of x xᵀ of what enters a layer's matrices."""

    def __init__(self, sweep, layer, attention):
        experts, width, hidden = layer.mlp.experts.down_proj.mT.shape
        self.gate_up = torch.zeros(experts, hidden, hidden)
        self.down = torch.zeros(experts, width, width)
        self.tokens = torch.zeros(experts, dtype=torch.long)
        self.of_projection = {}
        handles = [layer.mlp.experts.register_forward_pre_hook(self.add_experts)]
        if attention:
            handles += [projection.register_forward_pre_hook(
                            self.add_projection)
                        for projection in (layer.self_attn.q_proj,
                                           layer.self_attn.o_proj)]
        for _ in sweep.outputs(layer, self.begin):
            pass
        for handle in handles:
            handle.remove()

    def begin(self, real):
        self.real = real

    def add_projection(self, projection, arguments):
        x = arguments[0].flatten(0, -2)[self.real]
        self.of_projection[projection] = (
            self.of_projection.get(projection, 0) + x.T @ x)

    def add_experts(self, experts, arguments):
        hidden, chosen, _ = arguments
        for expert in range(len(self.tokens)):
            x = hidden[(chosen == expert).any(1) & self.real]
            gate, up = (x @ experts.gate_up_proj[expert].T).chunk(2, 1)
            inner = torch.nn.functional.silu(gate) * up
            self.gate_up[expert].addmm_(x.T, x)
            self.down[expert].addmm_(inner.T, inner)
            self.tokens[expert] += len(x)


def inverse_factors(moments, damping):
    """Upper Cholesky factors of the inverses of damped moments [B, C, C]; those
    that are singular, or that no token entered, count as the identity."""
    eye = torch.eye(moments.shape[-1])
    mean = moments.diagonal(dim1=1, dim2=2).mean(1)
    damped = moments + damping * mean[:, None, None] * eye
    lower, failed = torch.linalg.cholesky_ex(damped)
    lower[(failed != 0) | (mean == 0)] = eye
    return torch.linalg.cholesky(torch.cholesky_inverse(lower), upper=True)


def gptq(weights, factors, grid, block=128):
    """The rounded weights [B, R, C]; grid.round has a column's nearest levels,
    grid.start is shown what is left of the weights where a group begins."""
    left = weights.clone()
    rounded = torch.empty_like(left)
    columns = left.shape[-1]
    for begin in range(0, columns, block):
        end = min(begin + block, columns)
        errors = torch.empty_like(left[:, :, begin:end])
        for c in range(begin, end):
            grid.start(left, c)
            column = left[:, :, c]
            rounded[:, :, c] = grid.round(column)
            error = (column - rounded[:, :, c]) / factors[:, None, c, c]
            left[:, :, c:end] -= error[:, :, None] * factors[:, None, c, c:end]
            errors[:, :, c - begin] = error
        left[:, :, end:] -= errors @ factors[:, begin:end, end:]
    return rounded


def bf16(values):
    return values.bfloat16().float()


class MinMaxTrits:
    """QMoE's levels: a row's least and greatest weight, and 0."""

    def __init__(self, weights):
        self.low = bf16(weights.amin(2).clamp(max=0))
        self.high = bf16(weights.amax(2).clamp(min=0))

    def start(self, left, column):
        pass

    def round(self, column):
        return torch.where(
            column > self.high / 2, self.high,
            torch.where(column < self.low / 2, self.low, 0.0))


class SymmetricInts:
    """Scales by the largest weight of a row's group."""

    def __init__(self, bits, group):
        self.most = 2 ** (bits - 1)
        self.group = group

    def start(self, left, column):
        if column % self.group == 0:
            largest = left[:, :, column:column + self.group].abs().amax(2)
            self.scale = bf16(largest / (self.most - 0.5)).clamp(min=1e-30)

    def round(self, column):
        levels = (column / self.scale).round()
        return levels.clamp(-self.most, self.most - 1) * self.scale
