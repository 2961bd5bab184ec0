# SPDX-License-Identifier: Apache-2.0
"""Reads packed weights by what src/model/weights/packed_weight.h says of their bytes."""

from __future__ import annotations

import dataclasses
import pathlib
import struct

import numpy as np
import safetensors
import torch

INT, TERNARY = 0, 1


@dataclasses.dataclass
class Packed:
    """A matrix of codes: value = (code - zero) * scale."""

    kind: int
    bits: int
    group: int
    codes: torch.Tensor  # [rows, cols] int64, of ternary trit + 1
    scales: torch.Tensor  # [rows, groups] float64
    zeros: torch.Tensor  # [rows, groups] float64

    def spread(self, per_group: torch.Tensor) -> torch.Tensor:
        """[rows, groups] to [rows, cols]."""
        cols = self.codes.shape[1]
        return per_group.repeat_interleave(self.group, 1)[:, :cols]

    def values(self) -> torch.Tensor:
        return (self.codes - self.spread(self.zeros)) * self.spread(self.scales)


def _bits_of(data: bytes, rows: int, cols: int, bits: int) -> torch.Tensor:
    stored = np.frombuffer(data, np.uint8).reshape(rows, (cols + 7) // 8 * bits)
    every = np.unpackbits(stored, axis=1, bitorder="little")[:, : cols * bits]
    codes = every.reshape(rows, cols, bits).astype(np.int64) << np.arange(bits)
    return torch.from_numpy(codes.sum(-1))


def _trits_of(data: bytes, rows: int, cols: int) -> torch.Tensor:
    stored = np.frombuffer(data, np.uint8).reshape(rows, (cols + 4) // 5)
    place = np.arange(cols)
    codes = stored[:, place // 5].astype(np.int64) // 3 ** (place % 5) % 3
    return torch.from_numpy(codes)


def parse(blob: bytes) -> Packed:
    """The matrix of one stored tensor; kinds of one row length only."""
    magic, kind, bits, zeros, _, rows, cols, group, table, lengths, codes, _ = (
        struct.unpack("<4s4B6IQ", blob[:40])
    )
    assert magic == b"FPK1" and table == lengths == 0 and kind in (INT, TERNARY)
    groups = -(-cols // group)
    at = 40
    scales = torch.frombuffer(
        bytearray(blob[at : at + 2 * rows * groups]), dtype=torch.bfloat16
    ).reshape(rows, groups)
    at += 2 * rows * groups
    middle = 1 if kind == TERNARY else 1 << bits - 1
    points = torch.full((rows, groups), middle)
    if zeros:
        size = rows * ((groups + 7) // 8 * bits)
        points = _bits_of(blob[at : at + size], rows, groups, bits)
        at += size
    assert at + codes == len(blob)
    data = blob[at:]
    matrix = (
        _trits_of(data, rows, cols)
        if kind == TERNARY
        else _bits_of(data, rows, cols, bits)
    )
    return Packed(kind, bits, group, matrix, scales.double(), points.double())


def load(folder: pathlib.Path) -> dict[str, Packed | torch.Tensor]:
    """All weights of a model folder by their names, packed or plain."""
    weights: dict[str, Packed | torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(path, "pt") as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                if name.endswith(".packed"):
                    weights[name.removesuffix(".packed")] = parse(
                        tensor.numpy().tobytes()
                    )
                else:
                    weights[name] = tensor
    return weights
