# SPDX-License-Identifier: Apache-2.0
"""What tests/bench/quant_fidelity.py measures: the sections of its grid, each a
list of runs. The most telling come first, so that a run broken off early is of
use."""

import dataclasses

BITS = ["int8", "int4", "int3", "int2", "ternary"]
LOW_BITS = ["int4", "int3", "int2", "ternary"]
KEEPS = [0.75, 0.5, 0.25]
ENTROPY_WEIGHTS = [0.1, 0.3, 1.0]
FEW_TOKENS = 32768


@dataclasses.dataclass(frozen=True)
class Run:
    """A model of few bits: `bits` is the scheme of its experts, or bf16 for
    none, or qmoe for QMoE's own recipe. All else is quant's default unless it
    is said."""

    bits: str = "int4"
    method: str = "gptq"
    keep: float = 1.0  # of the experts' neurons, trimmed beforehand
    tokens: int = 131072  # of calibration; 0: no data
    calibrate: str = "routed"
    gate: str = "weighted"
    starved: str = "mean"
    act_order: bool = False
    damping: float = 0.01
    refine: int = 2
    group: int = 128
    zeros: str = "auto"
    down: str = ""
    entropy_weight: float = 0.0

    def key(self):
        return dataclasses.asdict(self)

    def flags(self):
        """Of `fettle quant`, less those of the data."""
        flags = ["--bits", self.bits, "--method", self.method,
                 "--group", self.group, "--zeros", self.zeros,
                 "--entropy-weight", self.entropy_weight,
                 "--damping", self.damping, "--refine", self.refine,
                 "--calibrate", self.calibrate,
                 "--starved", self.starved]
        if self.down:
            flags += ["--down", self.down]
        if self.gate == "plain":
            flags.append("--plain-gate")
        if self.act_order:
            flags.append("--act-order")
        return flags


BF16 = Run("bf16", "none", tokens=0)
QMOE = Run("qmoe", gate="plain", starved="rtn", damping=0.1, group=0)


def rtn(bits, **more):
    return Run(bits, "rtn", tokens=0, **more)


def headline():
    """Every scheme, rounded to nearest and by GPTQ."""
    return [BF16, QMOE] + [run for bits in BITS
                           for run in (Run(bits), rtn(bits))]


def trimmed():
    """Trimmed first, then quantized: what are so many bytes best spent on?"""
    runs = [dataclasses.replace(BF16, keep=keep) for keep in KEEPS]
    return runs + [Run(bits, keep=keep) for keep in KEEPS for bits in BITS]


REFINEMENTS = {f"`--refine {passes}`": {"refine": passes}
               for passes in (0, 1, 2, 4, 8)}


def refinement():
    """GPTQ's codes as they are, and bettered."""
    return [Run(bits, **change) for change in REFINEMENTS.values()
            for bits in LOW_BITS]


CALIBRATIONS = {
    "as it is": {},
    "`--plain-gate`": {"gate": "plain"},
    "`--calibrate all`": {"calibrate": "all"},
    "`--calibrate all --plain-gate`": {"calibrate": "all", "gate": "plain"},
    "`--starved rtn`": {"starved": "rtn"},
    "`--act-order`": {"act_order": True},
    "`--damping 0.1`": {"damping": 0.1},
    "`--damping 0.001`": {"damping": 0.001},
    "`--tokens 32768`": {"tokens": FEW_TOKENS},
    "`--tokens 32768 --calibrate all`":
        {"tokens": FEW_TOKENS, "calibrate": "all"},
    "`--tokens 32768 --starved rtn`":
        {"tokens": FEW_TOKENS, "starved": "rtn"},
    "`--method rtn --data …`": {"method": "rtn"},
}


def calibration():
    """GPTQ with other statistics, one change at a time."""
    return [Run(bits, **changes) for changes in CALIBRATIONS.values()
            for bits in LOW_BITS]


GRIDS = {
    "as it is": {},
    "`--zeros yes`": {"zeros": "yes"},
    "`--zeros no`": {"zeros": "no"},
    "`--group 32`": {"group": 32},
    "`--group 64`": {"group": 64},
    "`--group 0`": {"group": 0},
}


def grids():
    """GPTQ onto other grids. Trits have no zero points to choose."""
    runs = [Run(bits, **changes) for changes in GRIDS.values()
            for bits in LOW_BITS if bits != "ternary" or "zeros" not in changes]
    return runs + [Run(bits, down=down) for bits, down in DOWNS]


# A bit more for the down projections alone.
DOWNS = [("int3", "int4"), ("int2", "int3"), ("ternary", "int2")]


def coded():
    """Trits whose grid heeds how few bits they can be coded in."""
    return [Run("ternary-coded", entropy_weight=weight, group=group)
            for weight in [0.0, *ENTROPY_WEIGHTS] for group in (128, 64)]


SECTIONS = {section.__name__: section for section in [
    headline, trimmed, coded, refinement, calibration, grids]}


def runs_of(names):
    """The runs of these sections, each once, in order."""
    return list(dict.fromkeys(run for name in names for run in SECTIONS[name]()))
