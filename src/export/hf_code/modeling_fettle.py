# SPDX-License-Identifier: Apache-2.0
"""A @MODEL_TYPE@ model whose experts differ in number and width.

Written by `fettle export --format hf-code` beside the weights. It takes
transformers' own classes for @MODEL_TYPE@ and gives each layer the experts that
config.json lists in "fettle_experts". It is loaded by

    AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

Experts of one width lie in one parameter. PEFT reaches the attention by
`target_modules`, and experts by `target_parameters`, for example
"experts.groups.0.down_proj".

This file reads no other file, opens no connection and runs no text as code.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
)

try:
    from transformers.integrations.moe import _grouped_linear
except ImportError:  # another version: experts are computed one by one
    _grouped_linear = None

STOCK_CONFIG = CONFIG_MAPPING["@MODEL_TYPE@"]
# A type that also sees has its whole class in the second.
STOCK_MODEL = (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    if STOCK_CONFIG in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
    else MODEL_FOR_CAUSAL_LM_MAPPING
)[STOCK_CONFIG]


class FettleConfig(STOCK_CONFIG):
    # A type of its own: transformers and PEFT convert weights by this name.
    model_type = "fettle_@MODEL_TYPE@"
    # Plans for many cards name the stock experts' parameters.
    base_model_tp_plan = None
    base_model_ep_plan = None

    @classmethod
    def is_custom_code(cls):
        """Kinds of layers keep the names that the stock classes know."""
        return False


class ExpertGroup(nn.Module):
    """n experts of one width w, as [n, 2w, H] (without a gate [n, w, H]) and
    [n, H, w]."""

    def __init__(self, experts, count, width, hidden, std):
        super().__init__()
        self.name = "gate_up_proj" if experts.has_gate else "up_proj"
        rows = 2 * width if experts.has_gate else width
        self.activate = experts.activate
        into = nn.Parameter(torch.empty(count, rows, hidden))
        self.register_parameter(self.name, into)
        self.down_proj = nn.Parameter(torch.empty(count, hidden, width))
        self.bias_name = self.name + "_bias"
        if experts.has_bias:
            bias = nn.Parameter(torch.zeros(count, rows))
            self.register_parameter(self.bias_name, bias)
        for weight in (into, self.down_proj):
            nn.init.normal_(weight, std=std)

    def forward(self, x, counts):
        """x [m, H], sorted by expert, the first counts[0] of the first."""
        into = getattr(self, self.name)
        bias = getattr(self, self.bias_name, None)
        h = self.activate(_products(x, into, counts, bias))
        return _products(h, self.down_proj, counts)


def _products(x, weight, counts, bias=None):
    """Each expert's rows of x [m, n_in] times its weight [n_out, n_in]."""
    x = x.to(weight.dtype)  # under autocast, some are wider
    # Grouped products want rows of whole 16 bytes.
    aligned = all(n * x.element_size() % 16 == 0 for n in weight.shape[1:])
    if len(counts) > 1 and x.is_cuda and aligned and _grouped_linear:
        ends = torch.tensor(counts, device=x.device).cumsum(0).int()
        out = _grouped_linear(x, weight, ends)
        if bias is None:
            return out
        return out + bias.repeat_interleave(
            torch.tensor(counts, device=x.device), 0, output_size=len(x)
        )
    # unbind: one gradient for all experts, not one of full size for each.
    weights = weight.unbind(0)
    biases = [None] * len(counts) if bias is None else bias.unbind(0)
    return torch.cat(
        [
            F.linear(rows, weights[e], biases[e])
            for e, rows in enumerate(x.split(counts))
            if counts[e] > 0
        ]
    )


class FettleExperts(nn.Module):
    """A layer's experts, called as transformers calls its own."""

    def __init__(self, stock, widths, has_constants, std):
        super().__init__()
        self.has_gate = stock.has_gate
        self.has_bias = stock.has_bias
        transposed = stock.is_transposed
        hidden = stock.down_proj.shape[2 if transposed else 1]
        self.hidden = hidden
        # What the family does between the two products needs no weights.
        gate = copy.copy(stock)
        gate._parameters = {}
        self.activate = gate._apply_gate if stock.has_gate else gate.act_fn
        # Experts without a neuron come first, then width by width.
        self.group_widths = sorted(set(widths) - {0})
        order = sorted(range(len(widths)), key=lambda e: (widths[e], e))
        self.order = order
        self.sizes = [widths.count(width) for width in self.group_widths]
        self.empty = widths.count(0)
        self.groups = nn.ModuleList(
            ExpertGroup(self, size, width, hidden, std)
            for size, width in zip(self.sizes, self.group_widths)
        )
        self.constant = None
        if has_constants:
            self.constant = nn.Parameter(torch.zeros(len(widths), hidden))
        self._places = {}

    def _place_of(self, device):
        """Where each expert stands in `order`."""
        if device not in self._places:
            order = torch.tensor(self.order)
            self._places[device] = order.argsort().to(device)
        return self._places[device]

    def forward(self, hidden_states, top_k_index, top_k_weights):
        """[N, H], and [N, K] twice; gives [N, H]."""
        tokens, top_k = top_k_index.shape
        chosen = top_k_index.reshape(-1)
        place = self._place_of(chosen.device)[chosen]
        order = place.argsort(stable=True)
        counts = place.bincount(minlength=len(self.order)).tolist()
        x = hidden_states[order // top_k]
        at, first = sum(counts[: self.empty]), self.empty
        parts = [x.new_zeros(at, self.hidden)]
        for size, group in zip(self.sizes, self.groups):
            of_group = counts[first : first + size]
            rows = sum(of_group)
            if rows > 0:
                parts.append(group(x[at : at + rows], of_group))
            at, first = at + rows, first + size
        y = torch.cat(parts)
        if self.constant is not None:
            y = y + F.embedding(chosen[order], self.constant)
        y = y * top_k_weights.reshape(-1)[order, None]
        # Back in the tokens' order, so that sums don't depend on others.
        y = y[order.argsort()].view(tokens, top_k, -1)
        return y.sum(1).to(hidden_states.dtype)


class FettleRouter:
    """Before a stock router's class: a bias on its logits, and condensers,
    which are among the experts of every token."""

    def forward(self, hidden_states, *corrections):
        outputs = super().forward(hidden_states, *corrections)
        # Some routers give (index, weights, logits).
        turned = not outputs[0].is_floating_point()
        logits = outputs[2 if turned else 0].float()
        options = self.fettle
        if options["gives_probabilities"]:
            logits = logits.log()
        if self.logit_bias is not None:
            logits = logits + self.logit_bias
        sigmoid = options["score"] == "sigmoid"
        scores = logits.sigmoid() if sigmoid else logits.softmax(-1)
        index = self._choose(scores.detach(), self._correction(corrections))
        weights = self._weights(logits, scores, index).to(outputs[1].dtype)
        if turned:
            return index, weights, logits
        return logits, weights, index

    def _correction(self, given):
        if given:
            return given[0]
        holder = getattr(self, "moe_statics", self)
        found = getattr(holder, "e_score_correction_bias", None)
        return None if found is None else found.reshape(-1)

    @torch.no_grad()
    def _choose(self, scores, correction):
        options = self.fettle
        always = options["condensers"]
        ranked = scores.clone() if correction is None else scores + correction
        if options["groups"] > 1:
            outside = -torch.inf if options["outside"] == "-inf" else 0.0
            ranked[:, always] = outside
            ranked = self._best_groups(ranked, outside)
        ranked[:, always] = -torch.inf
        others = ranked.topk(options["top_k"] - len(always), -1).indices
        fixed = others.new_tensor(always).expand(len(others), -1)
        return torch.cat([fixed, others], 1)

    def _best_groups(self, ranked, outside):
        options = self.fettle
        grouped = ranked.view(len(ranked), options["groups"], -1)
        if options["group_score"] == "max":
            of_group = grouped.amax(-1)
        else:
            of_group = grouped.topk(2, -1).values.sum(-1)
        best = of_group.topk(options["topk_groups"], -1).indices
        kept = torch.zeros_like(of_group).scatter_(1, best, 1.0).bool()
        return grouped.masked_fill(~kept[..., None], outside).flatten(1)

    def _weights(self, logits, scores, index):
        options = self.fettle
        if options["score"] == "topk-then-softmax":
            weights = logits.gather(1, index).softmax(-1)
        else:
            weights = scores.gather(1, index)
            if options["renormalize"]:
                total = weights.sum(-1, keepdim=True)
                total = total.clamp(min=options["least_sum"])
                weights = weights / (total + options["added_sum"])
        weights = weights * options["scale"]
        scales = getattr(self, "per_expert_scale", None)
        return weights if scales is None else weights * scales[index]


# What stock routers and blocks hold of each expert.
_ROWS = ("weight", "bias", "e_score_correction_bias", "expert_bias",
         "per_expert_scale")


def _set_count(module, count):
    """Resizes what `module` holds of each expert to `count` experts."""
    for held in (module._parameters, module._buffers):
        for name in _ROWS:
            old = held.get(name)
            if old is None:
                continue
            # One is stored as [1, E].
            whole = old.dim() == 2 and old.shape[0] == 1
            shape = (1, count) if whole else (count, *old.shape[1:])
            new = torch.zeros(shape, dtype=old.dtype, device=old.device)
            if isinstance(old, nn.Parameter):
                new = nn.Parameter(new, requires_grad=old.requires_grad)
            held[name] = new
    if isinstance(module, nn.Linear):
        module.out_features = count


def _set_layer(block, layer, options, std):
    """Gives a stock block the experts and the router of `layer`."""
    router = block.gate if hasattr(block, "gate") else block.router
    count = len(layer["expert_widths"])
    if block.experts.num_experts != count:
        _set_count(block, count)
        for module in router.modules():
            _set_count(module, count)
    for module in (block, router):
        if hasattr(module, "num_experts"):
            module.num_experts = count
        if hasattr(module, "top_k"):
            module.top_k = layer["top_k"]
    if not hasattr(router, "top_k"):  # one that asks its configuration
        router.config = copy.copy(router.config)
        router.config.top_k_experts = layer["top_k"]
    if layer["router_bias"] or layer["condensers"]:
        stock = type(router)
        router.__class__ = type(
            "Fettle" + stock.__name__, (FettleRouter, stock), {}
        )
        router.fettle = {**options, **layer}
        router.logit_bias = None
        if layer["router_bias"]:
            router.logit_bias = nn.Parameter(torch.zeros(count))
    block.experts = FettleExperts(
        block.experts, layer["expert_widths"], layer["has_constants"], std
    )


def _is_custom():
    """Said of stock bodies, so that transformers converts no weights of
    theirs."""
    return True


class FettleForCausalLM(STOCK_MODEL):
    config_class = FettleConfig
    _keep_in_fp32_modules_strict = [
        *(STOCK_MODEL._keep_in_fp32_modules_strict or []),
        "experts.constant",
        "logit_bias",
    ]

    def __init__(self, config):
        super().__init__(config)
        described = config.fettle_experts
        text = getattr(self.model, "language_model", self.model)
        for body in (self.model, text):
            body.is_custom_code = _is_custom
        std = getattr(text.config, "initializer_range", 0.02)
        for module, layer in zip(text.layers, described["layers"]):
            if layer is None:
                continue
            block = next(m for m in module.modules() if hasattr(m, "experts"))
            _set_layer(block, layer, described["router"], std)
