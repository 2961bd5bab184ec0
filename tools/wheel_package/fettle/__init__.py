# SPDX-License-Identifier: Apache-2.0
"""The command fettle: hands over to the program, with libtorch where torch is."""

import importlib.util
import os
import pathlib
import sys


def main() -> None:
    package = pathlib.Path(__file__).resolve().parent
    program = package / "bin" / "fettle"
    torch = importlib.util.find_spec("torch")
    if torch is None or torch.origin is None:
        sys.exit("fettle: the package torch is missing: pip install fettle again")
    libraries = pathlib.Path(torch.origin).resolve().parent / "lib"
    # The program looks beside its own package; torch may lie in another place.
    if libraries != package.parent / "torch" / "lib":
        paths = [str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]
        os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    # Conversations are rendered by this Python, which has transformers.
    os.environ.setdefault("FETTLE_PYTHON", sys.executable)
    os.execv(program, [str(program), *sys.argv[1:]])
