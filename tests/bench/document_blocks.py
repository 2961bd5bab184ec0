# SPDX-License-Identifier: Apache-2.0
"""Tables in a document of Markdown: what stands between `<!-- TABLE MODEL -->`
and `<!-- end -->` is made from results, the text between by hand."""

import re

BLOCK = re.compile(r"(<!-- (\w+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(document, tables, models):
    """tables: makers of lines by name; models: results by name."""
    def block(found):
        begin, name, model, end = found.groups()
        return begin + "\n".join(["", *tables[name](models[model]), "", end])

    document.write_text(BLOCK.sub(block, document.read_text()))


def table(header, rows):
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header),
            *("| " + " | ".join(row) + " |" for row in rows)]
