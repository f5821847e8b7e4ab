"""What people and programs read: tables or tab-separated lines, or one JSON document.

On a terminal, tables and bars; elsewhere plain lines without control characters, so that output can
be piped and logged. Names come from sources and may hold anything, terminal escapes included: they
are shown with such characters spelled out.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from matih_ray.api.wire import Problem
from matih_ray.model.value import JsonValue, Value

Cell = str | int | float | bool | datetime | None


class Output:
    """Standard output as one command uses it."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(highlight=False, markup=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """Somebody is looking at standard output."""
        return self.console.is_terminal

    def document(self, value: Value | JsonValue) -> None:
        """One JSON document."""
        plain = value.to_dict() if isinstance(value, Value) else value
        indent = 2 if self.is_terminal else None
        sys.stdout.write(json.dumps(plain, indent=indent) + "\n")
        sys.stdout.flush()

    def line(self, text: str) -> None:
        """One line of text."""
        sys.stdout.write(clean(text) + "\n")
        sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
        """Rows under headings; numbers to the right on a terminal."""
        texts = [[_shown(cell) for cell in row] for row in rows]
        if not self.is_terminal:
            for row in [list(columns), *texts]:
                self.line("\t".join(row))
            return
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number, name in enumerate(columns):
            is_number = bool(texts) and all(_is_number(row[number]) for row in texts)
            table.add_column(name, justify="right" if is_number else "left", overflow="fold")
        for row in texts:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(table, soft_wrap=False)

    def facts(self, facts: Iterable[tuple[str, Cell]]) -> None:
        """Names and values, a line each; what is not known is left out."""
        for name, value in facts:
            if value is not None:
                start = f"{name:<14}" if self.is_terminal else f"{name}\t"
                self.line(start + _shown(value))


def complain(message: str, problem: Problem | None = None) -> None:
    """Say on standard error what is wrong."""
    code = f" [{problem.code}]" if problem is not None else ""
    sys.stderr.write(f"matih: {clean(message)}{code}\n")
    for item in problem.errors if problem is not None else ():
        sys.stderr.write(f"  {clean(item.field)}: {clean(item.message)}\n")
    sys.stderr.flush()


def note(message: str) -> None:
    """Say something on standard error that is no part of the result."""
    sys.stderr.write(clean(message) + "\n")
    sys.stderr.flush()


def clean(text: str) -> str:
    """The text with control and invisible formatting characters spelled out."""
    if text.isprintable():
        return text
    return "".join(char if _is_shown(char) else ascii(char)[1:-1] for char in text)


def _is_shown(char: str) -> bool:
    return char == "\t" or not unicodedata.category(char).startswith("C")


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, datetime):
        return cell.isoformat(timespec="seconds")
    return clean(str(cell)).replace("\t", "\\t")


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).replace("%", "", 1).isdecimal()
