# SPDX-License-Identifier: Apache-2.0
"""Puts the results of trim_fidelity.py into docs/trim-fidelity.md: fills what
stands between `<!-- TABLE MODEL -->` and `<!-- end -->`, draws the charts, and
writes every run to docs/trim-fidelity.csv. The text between is written by hand.

    python tests/bench/trim_fidelity_report.py RESULTS... [--docs docs]
"""

import argparse
import pathlib

import document_blocks
import trim_fidelity_charts
import trim_fidelity_data
import trim_fidelity_tables


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results", type=pathlib.Path, nargs="+")
    parser.add_argument("--docs", type=pathlib.Path,
                        default=pathlib.Path("docs"))
    options = parser.parse_args()
    models = trim_fidelity_data.load(options.results)
    trim_fidelity_data.write_csv(models, options.docs / "trim-fidelity.csv")
    trim_fidelity_charts.draw(models, options.docs)
    document_blocks.fill(
        options.docs / "trim-fidelity.md",
        lambda name, model: trim_fidelity_tables.TABLES[name](models[model]))


if __name__ == "__main__":
    main()
