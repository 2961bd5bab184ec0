# SPDX-License-Identifier: Apache-2.0
"""The demo's table: size and held-out loss of each model, domain by domain.

    demo_table.py FOLDER NAME...

FOLDER holds NAME-size.json, of `fettle inspect --json`, and NAME-loss.json, of
`fettle eval --json`.
"""

import json
import pathlib
import sys


def read_model(folder: pathlib.Path, name: str) -> tuple[dict, dict[str, float]]:
    """What `inspect` says, and the mean loss of each domain and of all tokens."""
    size = json.loads((folder / f"{name}-size.json").read_text())
    files = json.loads((folder / f"{name}-loss.json").read_text())["files"]
    losses = {
        pathlib.Path(f["file"]).stem.removeprefix("held_"): f["nll"] for f in files
    }
    tokens = sum(f["tokens"] for f in files)
    losses["all tokens"] = sum(f["nll"] * f["tokens"] for f in files) / tokens
    return size, losses


def table(folder: pathlib.Path, names: list[str]) -> str:
    rows = []
    for name in names:
        size, losses = read_model(folder, name)
        if not rows:
            rows.append(["", "parameters", "bytes", *losses])
        cells = [f"{size['parameters']:,}", f"{size['bytes']:,}"]
        rows.append([name, *cells, *(f"{loss:.4f}" for loss in losses.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    print("Size, and held-out loss in nats a token:\n")
    print(table(pathlib.Path(sys.argv[1]), sys.argv[2:]))
