# SPDX-License-Identifier: Apache-2.0
"""Which message each stretch of a rendered conversation comes from.

A chat template writes a conversation in a loop over its messages. A copy of the
template gets a call at the start of each such round, which writes a mark with
the message's number. The copy is rendered once, the marks are taken out, and
what is left must be the text of the template itself."""

import os
import re

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

NOBODY = -1


class NotFollowed(Exception):
    """The marks don't tell who wrote what, or changed the text."""


class _Rounds:
    """The loops that are being run, and the message that each is at."""

    def __init__(self):
        # Unlikely to be in any text, and no template can cut it in two.
        key = os.urandom(8).hex()
        self._mark = f"\ue000{key}:%d\ue001"
        self._marks = re.compile(f"\ue000{key}:(-?\\d+)\ue001")
        self._start([])

    def _start(self, messages: list) -> None:
        # Keeps the messages, so that no other object takes their addresses.
        self._messages = messages
        self._numbers = {id(message): i for i, message in enumerate(messages)}
        self._running = []  # [loop, message or None]
        self.strange = False

    def cut(self, text: str) -> list[tuple[int, str]]:
        """The stretches between marks, each with its message."""
        parts = self._marks.split(text)
        owners = [NOBODY, *map(int, parts[1::2])]
        return [(o, s) for o, s in zip(owners, parts[::2], strict=True) if s]

    def begin(self, messages: list) -> None:
        self._start(messages)

    def _number(self, value) -> int | None:
        if not isinstance(value, dict):
            return None
        number = self._numbers.get(id(value))
        if number is None and "role" in value:
            self.strange = True  # the template made a message of its own
        return number

    def _here(self) -> str:
        inner = [number for _, number in self._running if number is not None]
        return self._mark % (inner[-1] if inner else NOBODY)

    def _forget(self, loop: int) -> bool:
        """Ends a loop and those within it. Whether they were at a message."""
        ids = [loop_id for loop_id, _ in self._running]
        if loop not in ids:
            return False
        ended = self._running[ids.index(loop) :]
        del self._running[ids.index(loop) :]
        return any(number is not None for _, number in ended)

    # What the marked template calls.

    def at(self, loop: int, targets: tuple) -> str:
        """A loop comes to its next element."""
        changed = self._forget(loop)
        numbers = [n for n in map(self._number, targets) if n is not None]
        self._running.append([loop, numbers[0] if numbers else None])
        return self._here() if changed or numbers else ""

    def names(self, loop: int, value) -> str:
        """A loop over numbers looks up the message that it is at."""
        frame = next((f for f in self._running if f[0] == loop), None)
        if frame is None or frame[1] is not None:
            return ""
        frame[1] = self._number(value)
        return self._here() if frame[1] is not None else ""

    def leave(self, loop: int) -> str:
        return self._here() if self._forget(loop) else ""


class _Marker(NodeTransformer):
    """Puts the calls into a template."""

    def __init__(self):
        self._loops = 0
        self._around = []  # the loops around a node

    def visit_For(self, node: nodes.For) -> list[nodes.Node]:
        if node.find(nodes.Output) is None:
            return [node]  # it writes nothing, as when it looks ahead
        self._loops += 1
        loop = self._loops
        self._around.append(loop)
        self.generic_visit(node)
        self._around.pop()
        names = [
            nodes.Name(name.name, "load", lineno=node.lineno)
            for name in node.target.find_all(nodes.Name)
        ] or [nodes.Name(node.target.name, "load", lineno=node.lineno)]
        targets = nodes.Tuple(names, "load", lineno=node.lineno)
        node.body.insert(0, _call("at", node.lineno, loop, targets))
        return [node, _call("leave", node.lineno, loop)]

    def visit_Assign(self, node: nodes.Assign) -> list[nodes.Node]:
        if not (
            self._around
            and isinstance(node.target, nodes.Name)
            and isinstance(node.node, nodes.Getitem)
        ):
            return [node]
        value = nodes.Name(node.target.name, "load", lineno=node.lineno)
        return [node, _call("names", node.lineno, self._around[-1], value)]


def _call(method: str, line: int, loop: int, *values: nodes.Expr) -> nodes.Output:
    of = nodes.EnvironmentAttribute(f"fettle_{method}", lineno=line)
    arguments = [nodes.Const(loop, lineno=line), *values]
    call = nodes.Call(of, arguments, [], None, None, lineno=line)
    return nodes.Output([call], lineno=line)


class TurnFinder:
    """A compiled template's marked copy."""

    def __init__(self, environment, source: str):
        self._rounds = _Rounds()
        for method in ("at", "names", "leave"):
            setattr(environment, f"fettle_{method}", getattr(self._rounds, method))
        tree = _Marker().visit(environment.parse(source))
        code = environment.compile(tree)
        globals_ = environment.make_globals(None)
        self._template = environment.template_class.from_code(
            environment, code, globals_
        )

    def stretches(
        self, text: str, messages: list, variables: dict
    ) -> list[tuple[int, str]]:
        """`text`, which the template wrote, in stretches: each with the number
        of the message whose round wrote it, or NOBODY. Throws NotFollowed when
        the marks say something else than the text."""
        self._rounds.begin(messages)
        try:
            marked = self._template.render(messages=messages, **variables)
        except MemoryError:
            raise
        except Exception as error:  # though the template itself did not fail
            raise NotFollowed from error
        stretches = self._rounds.cut(marked)
        if self._rounds.strange or "".join(s for _, s in stretches) != text:
            raise NotFollowed
        return stretches
