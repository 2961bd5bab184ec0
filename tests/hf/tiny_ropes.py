# SPDX-License-Identifier: Apache-2.0
"""Rotary options of tiny models."""

from __future__ import annotations

from typing import Any


def rope(rope_type: str, **options: Any) -> dict[str, Any]:
    return {
        "rope_parameters": {
            "rope_type": rope_type,
            "rope_theta": 10000.0,
            **options,
        }
    }


def yarn(**options: Any) -> dict[str, Any]:
    return rope(
        "yarn", factor=4.0, original_max_position_embeddings=16, **options
    )


def longrope(pairs: int, original: int) -> dict[str, Any]:
    return rope(
        "longrope",
        factor=4.0,
        original_max_position_embeddings=original,
        short_factor=[1.0 + 0.1 * i for i in range(pairs)],
        long_factor=[2.0 + 0.5 * i for i in range(pairs)],
    )


LLAMA3 = rope(
    "llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=16,
)
