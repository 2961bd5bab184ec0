# SPDX-License-Identifier: Apache-2.0
"""Tables in a document of Markdown: what stands between `<!-- NAME OF -->` and
`<!-- end -->` is made from results, the text between by hand."""

import re

BLOCK = re.compile(r"(<!-- (\w+) ([^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(document, make):
    """make(name, of): the lines of a block, or None where it stays as it is."""
    def block(found):
        begin, name, of, end = found.groups()
        lines = make(name, of)
        if lines is None:
            return found[0]
        return begin + "\n".join(["", *lines, "", end])

    document.write_text(BLOCK.sub(block, document.read_text()))


def table(header, rows):
    return ["| " + " | ".join(header) + " |", "|" + "---|" * len(header),
            *("| " + " | ".join(row) + " |" for row in rows)]
