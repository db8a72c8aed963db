"""What people and scripts see: JSON on stdout, tables that fit a terminal, sizes and times for people.

On a terminal tables are rich's; elsewhere they are aligned lines without colour, whole, never cut off.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TextIO

from farm.human import (
    count_of,
    human_ago,
    human_seconds,
    human_size,
    human_time,
    listed,
    settings_text,
    short,
    value_text,
)

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Column",
    "Table",
    "card",
    "count_of",
    "cut",
    "emit",
    "emit_line",
    "fancy",
    "human_ago",
    "human_seconds",
    "human_size",
    "human_time",
    "listed",
    "note",
    "say",
    "settings_text",
    "short",
    "terminal",
    "value_text",
]

# C0 and C1 controls and DEL, less the line feed.
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")

STYLES = {
    "hit": "green",
    "built": "cyan",
    "joined": "cyan",
    "succeeded": "green",
    "done": "green",
    "ok": "green",
    "failed": "bold red",
    "fail": "bold red",
    "missing": "yellow",
    "warn": "yellow",
    "cancelled": "yellow",
    "running": "blue",
    "queued": "dim",
    "invalid": "dim",
    "honoured": "green",
    "inert": "yellow",
    "refused": "red",
    "moot": "dim",
    "yes": "green",
    "no": "red",
}


def emit(document: Any) -> None:
    """One JSON document on stdout: indented for whoever looks at it, in one line for a program (as ``gh`` does), since
    indenting ten thousand trials takes longer than to ask for them."""
    print(json.dumps(document, indent=2 if sys.stdout.isatty() else None, default=str))


def emit_line(document: Any) -> None:
    """One JSON line of a stream."""
    print(json.dumps(document, separators=(",", ":"), default=str), flush=True)


def say(text: str = "") -> None:
    """A line for people, on stdout."""
    print(_wrapped(visible(text), sys.stdout))


def note(text: str) -> None:
    """A line about the work, on stderr."""
    print(_wrapped(visible(text), sys.stderr), file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """``text`` with its control characters written out, line breaks aside: a model's name, which anybody may
    have chosen, must not move the cursor of whoever lists it."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _wrapped(text: str, stream: TextIO) -> str:
    """Broken between words where a terminal is too narrow for it; anywhere else a line stays one line."""
    room = shutil.get_terminal_size().columns
    if len(text) <= room or not stream.isatty():
        return text
    indent = " " * (len(text) - len(text.lstrip()) or 6)
    return textwrap.fill(text, room, subsequent_indent=indent)


def fancy(stream: Any = None) -> bool:
    """Whether ``stream`` (stdout by default) is a terminal that is worth drawing on."""
    if not (stream or sys.stdout).isatty():
        return False
    console = terminal(stream)
    return console.is_terminal and not console.is_dumb_terminal


def terminal(stream: Any = None) -> Console:
    """A rich console on ``stream``; rich itself honours ``NO_COLOR`` and dumb terminals."""
    from rich.console import Console

    return Console(file=stream or sys.stdout, highlight=False, soft_wrap=False)


# -- tables --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column: its heading (lines of it), whether its numbers stand right, and how it may be made narrower where
    a terminal is: ``cut`` its ``head`` (paths) or its ``tail``, or ``fold`` it into several lines."""

    name: str
    right: bool = False
    cut: str = ""


NARROWEST = 8


@dataclass
class Table:
    """Rows of text under columns. A cell that is an outcome or a state is coloured on a terminal."""

    columns: Sequence[Column]
    rows: list[Sequence[str]] = field(default_factory=list)
    gap: int = 2

    def add(self, *cells: str) -> None:
        self.rows.append([visible(cell) for cell in cells])

    def show(self) -> None:
        """Print it on stdout, headings above; nothing at all when it has no rows."""
        if self.rows and fancy():
            self._drawn()
        elif self.rows:
            self._plain()

    @property
    def width(self) -> int:
        """Characters that the table takes when nothing is cut."""
        return sum(self._widths()) + self.gap * (len(self.columns) - 1)

    def _widths(self) -> list[int]:
        headings = [_width(column.name) for column in self.columns]
        return [max([heading, *(_width(row[n]) for row in self.rows)]) for n, heading in enumerate(headings)]

    def _plain(self) -> None:
        headings = [column.name.replace("\n", "") for column in self.columns]
        widths = [max(width, len(text)) for width, text in zip(self._widths(), headings, strict=True)]
        for row in (headings, *self.rows):
            for line in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
                cells = [
                    cell.rjust(width) if column.right else cell.ljust(width)
                    for cell, width, column in zip(line, widths, self.columns, strict=True)
                ]
                print((" " * self.gap).join(cells).rstrip())

    def _drawn(self) -> None:
        from rich.table import Table as RichTable
        from rich.text import Text

        console = terminal()
        widths = self._fitted(console.width)
        drawn = RichTable(box=None, pad_edge=False, padding=(0, self.gap, 0, 0), header_style="dim")
        for column, width in zip(self.columns, widths, strict=True):
            drawn.add_column(
                column.name,
                justify="right" if column.right else "left",
                no_wrap=column.cut != "fold",
                overflow="fold" if column.cut == "fold" else "ellipsis",
                width=width,
                vertical="bottom" if "\n" in "".join(c.name for c in self.columns) else "top",
            )
        for row in self.rows:
            cells = zip(row, widths, self.columns, strict=True)
            drawn.add_row(
                *(Text(cut(cell, width, column.cut), style=STYLES.get(cell, "")) for cell, width, column in cells)
            )
        console.print(drawn)

    def _fitted(self, room: int) -> list[int]:
        """Column widths that fit ``room`` where that can be: the widest of those that may be cut give way first."""
        widths = self._widths()
        excess = sum(widths) + self.gap * (len(widths) - 1) - room
        while excess > 0:
            givers = [n for n, column in enumerate(self.columns) if column.cut and widths[n] > NARROWEST]
            if not givers:
                break
            widest = max(givers, key=lambda n: widths[n])
            widths[widest] -= 1
            excess -= 1
        return widths


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))


def cut(text: str, width: int, side: str) -> str:
    """``text`` in ``width`` characters, its head or tail cut off where it is longer."""
    if len(text) <= width or side not in ("head", "tail"):
        return text
    return "…" + text[len(text) - width + 1 :] if side == "head" else text[: width - 1] + "…"


def card(title: str, facts: Iterable[tuple[str, str]]) -> None:
    """A title and named facts below it; facts without a value are left out."""
    pairs = [(name, visible(value)) for name, value in facts if value]
    width = max((len(name) for name, _ in pairs), default=0)
    if fancy():
        _drawn_card(title, pairs, width)
        return
    print(title)
    for name, value in pairs:
        print(f"  {name.ljust(width)}  {value.replace(chr(10), chr(10) + ' ' * (width + 4))}")


def _drawn_card(title: str, pairs: Sequence[tuple[str, str]], width: int) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    console = terminal()
    console.print(Text(title, style="bold"))
    grid = RichTable.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True, min_width=width + 2)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(f"  {name}", Text(value, style=STYLES.get(value, "")))
    console.print(grid)
