# SPDX-License-Identifier: Apache-2.0
"""The layer rule, on trees that break it in one known place."""

import pathlib
import subprocess
import sys

import check_includes
import pytest


def findings(root):
    return [str(finding) for finding in check_includes.check(root)]


@pytest.mark.parametrize(
    ("path", "include", "message"),
    [
        ("src/core/a.cpp", '"io/file.h"', "core may not include io: allowed are core"),
        ("src/io/a.cpp", '"model/x.h"', "io may not include model"),
        ("src/io/a.h", '"kernels/x.h"', "io may not include kernels"),
        ("src/text/a.cpp", '"io/file.h"', "text may not include io"),
        ("src/model/a.cpp", '"sweep/sweep.h"', "model may not include sweep"),
        ("src/model/a.cpp", '"text/t.h"', "model may not include text"),
        ("src/artifact/a.cpp", '"sweep/sweep.h"', "artifact may not include sweep"),
        ("src/sweep/a.cpp", '"artifact/m.h"', "sweep may not include artifact"),
        ("src/trim/a.cpp", '"analyze/a.h"', "trim may not include analyze"),
        ("src/tune/a.cpp", '"cli/cli.h"', "tune may not include cli"),
        ("src/model/family/a.cpp", '"model/weights/w.h"', "model/family may not include model/weights"),
        ("src/model/family/arch/a.cpp", '"model/layers/l.h"', "model/family may not include model/layers"),
        ("src/model/layers/a.cpp", '"model/causal_lm.h"', "model/layers may not include model:"),
        ("src/tune/part/a.cpp", '"tune/sparse/s.h"', "tune/part may not include tune/sparse"),
        ("kernels/a.cpp", '"io/dtype.h"', "kernels may not include io"),
        ("src/novel/a.cpp", '"core/error.h"', "module novel is not in the table"),
        ("src/core/a.cpp", '"error.h"', 'is no "module/file.h"'),
        ("src/core/a.cpp", '"../core/error.h"', 'is no "module/file.h"'),
        ("src/model/a.cpp", '"kernels/cpu/cpu.h"', "internal to kernels"),
        ("src/model/a.cpp", "<torch/torch.h>", "takes 10 s to read"),
        ("tests/unit/io/a.cpp", "<torch/torch.h>", "takes 10 s to read"),
        ("src/model/a.cpp", "<cuda_runtime.h>", "only kernels/gpu/runtime.h"),
        ("src/model/a.cpp", "<c10/cuda/CUDAStream.h>", "only kernels/gpu/runtime.h"),
        ("kernels/gpu/a.cu", "<hip/hip_runtime.h>", "only kernels/gpu/runtime.h"),
        ("kernels/gpu/a.cu", "<ATen/ATen.h>", "takes raw pointers only"),
        ("kernels/cpu/a.cpp", "<c10/util/Half.h>", "takes raw pointers only"),
    ],
)
def test_a_wrong_include_is_named(tree, path, include, message):
    found = findings(tree({path: f"#include {include}\n"}))
    assert len(found) == 1
    assert found[0].startswith(f"{path}:2: ")
    assert message in found[0]


@pytest.mark.parametrize(
    ("path", "include"),
    [
        ("src/core/a.cpp", '"core/error.h"'),
        ("src/core/a.cpp", "<vector>"),
        ("src/sweep/a.cpp", '"kernels/cross_entropy.h"'),
        ("src/sweep/a.cpp", '"text/dataset.h"'),
        ("src/artifact/a.cpp", '"store/layer_cache.h"'),
        ("src/tune/a.cpp", '"io/file.h"'),
        ("src/model/layers/a.cpp", '"model/family/arch/f.h"'),
        ("src/model/a.cpp", '"model/weights/w.h"'),
        ("src/tune/part/a.cpp", '"model/causal_lm.h"'),
        ("src/cli/a.cpp", '"export/export.h"'),
        ("src/main.cpp", '"cli/cli.h"'),
        ("kernels/a.cpp", '"kernels/cpu/cpu.h"'),
        ("kernels/a.cpp", "<ATen/ATen.h>"),
        ("kernels/gpu/runtime.h", "<cuda_runtime.h>"),
        ("kernels/gpu/runtime.h", "<hip/hip_runtime.h>"),
        ("tests/unit/core/a.cpp", '"cli/cli.h"'),
        ("tests/unit/core/a.cpp", '"fixtures.h"'),
        ("build/cpu/src/core/a.cpp", '"cli/cli.h"'),
        ("tools/readme.txt", '"cli/cli.h"'),
    ],
)
def test_an_allowed_include_passes(tree, path, include):
    assert findings(tree({path: f"#include {include}\n"})) == []


def test_every_stage_is_kept_from_every_other():
    for stage in check_includes.STAGES:
        others = set(check_includes.STAGES) - {stage}
        assert not check_includes.ALLOWED[stage] & (others | {"cli"})


def test_the_program_prints_what_it_finds_and_fails(tree):
    root = tree({"src/core/a.cpp": '#include <set>\n#include "io/file.h"\n'})
    script = [sys.executable, check_includes.__file__]
    done = subprocess.run([*script, str(root)], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith("src/core/a.cpp:3: core may not include io")
    pathlib.Path(root, "src/core/a.cpp").unlink()
    assert subprocess.run([*script, str(root)]).returncode == 0
