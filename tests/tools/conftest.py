# SPDX-License-Identifier: Apache-2.0
"""Trees of sources made for a test, and the checks to run on them."""

import pathlib
import sys
from collections.abc import Callable

import pytest

TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

LICENCE = "SPDX-License-Identifier: Apache-2.0\n"


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> Callable[[dict[str, str]], pathlib.Path]:
    """Writes files, each below its licence line, and returns their root."""

    def make(files: dict[str, str]) -> pathlib.Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            comment = "# " if path.suffix in (".py", ".sh", ".cmake") else "// "
            path.write_text(comment + LICENCE + text)
        return tmp_path

    return make
