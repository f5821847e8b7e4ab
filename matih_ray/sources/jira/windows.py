"""Cuts a time into windows of about as many issues each. Pure, but for whoever counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

from matih_ray.sources.jira import jql
from matih_ray.sources.read_ahead import PLAN_CALLS_AT_ONCE, read_ahead

# Counting calls for one project; a window that would need more stays larger.
MAX_PROBES = 2000
# Of a window that is cut: a second look is only needed where issues lie closer together.
MAX_PIECES = 32
# How many more rows would fit into a piece than it has: they are not spread quite evenly.
ROOM = 1.15
# JQL cannot cut finer.
MIN_WINDOW = 4 * jql.MINUTE


class Window(NamedTuple):
    """About `rows` issues with `after < updated <= until`, in microseconds since 1970."""

    after: int
    until: int
    rows: int


def cut(whole: Window, rows: int, count: Callable[[int, int], int]) -> list[Window]:
    """Windows in order that together are the whole, of `rows` issues at most where calls for
    counting and JQL's minutes allow it.

    Args:
        whole: What to cut.
        rows: Issues of a window.
        count: About how many lie after the first time and until the second; several threads call.
    """
    found: list[Window] = []
    uncut, probes = [whole], MAX_PROBES
    while uncut:
        asked: list[tuple[int, int]] = []
        for window in uncut:
            pieces = _pieces(window, rows)
            if len(pieces) > 1 and len(asked) + len(pieces) <= probes:
                asked += pieces
            else:
                found.append(window)
        probes -= len(asked)
        counts = read_ahead(lambda piece: count(*piece), asked, PLAN_CALLS_AT_ONCE)
        uncut = [Window(*piece, inside) for piece, inside in zip(asked, counts, strict=True)]
    return _joined(sorted(found), rows)


def _pieces(window: Window, rows: int) -> list[tuple[int, int]]:
    """The window in pieces of the same length, as many as hold so many rows if they are spread
    evenly; one if it holds no more or is too short."""
    length = window.until - window.after
    number = 1
    if window.rows > rows and length >= MIN_WINDOW:
        wanted = math.ceil(window.rows * ROOM / rows)
        number = min(wanted, MAX_PIECES, length // (MIN_WINDOW // 2))
    minutes = [(window.after + length * n // number) // jql.MINUTE for n in range(1, number)]
    return list(pairwise([window.after, *(n * jql.MINUTE for n in minutes), window.until]))


def _joined(windows: list[Window], rows: int) -> list[Window]:
    """Neighbours together that are no more than a window together."""
    joined: list[Window] = []
    for window in windows:
        if joined and joined[-1].rows + window.rows <= rows:
            before = joined.pop()
            joined.append(Window(before.after, window.until, before.rows + window.rows))
        else:
            joined.append(window)
    return joined
