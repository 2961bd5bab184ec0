# SPDX-License-Identifier: Apache-2.0
"""Where transformers keeps a layer's experts and router in memory."""

from __future__ import annotations

import torch


def block_of(layer: torch.nn.Module) -> torch.nn.Module | None:
    """The module with the layer's experts; None for a dense layer."""
    for name in ("mlp", "block_sparse_moe", "feed_forward", "mixer"):
        block = getattr(layer, name, None)
        if hasattr(block, "experts"):
            return block
    return layer if hasattr(layer, "experts") else None


def router_of(layer: torch.nn.Module) -> torch.nn.Parameter:
    """The router's weight [E, H]."""
    block = block_of(layer)
    if hasattr(block, "gate"):
        return block.gate.weight
    for inner in ("gate", "proj"):
        if hasattr(block.router, inner):
            return getattr(block.router, inner).weight
    return block.router.weight
