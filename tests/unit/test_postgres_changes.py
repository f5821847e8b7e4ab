"""Snapshots by their text, and rows out of messages: what needs no server."""

from __future__ import annotations

import struct

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matih_ray.errors import SourceError, UnrepresentableValueError
from matih_ray.sources.postgres.changes.messages import lsn_of, lsn_text
from matih_ray.sources.postgres.changes.tuples import (
    ADDED,
    AFTER,
    BEFORE,
    REMOVED,
    Layout,
    rows_of,
)
from matih_ray.sources.postgres.changes.visibility import SnapshotView

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
UNSENT = 0
# The third column and then the first are wanted of three.
LAYOUT = Layout("public.t", 3, (2, 0), ("third", "first"))
Values = tuple[str | int | None, ...]


def message(kind: str, mark: str | None, old: Values | None, new: Values | None) -> bytes:
    """A change as pgoutput sends it."""
    made = kind.encode() + struct.pack("!I", 4711)
    if old is not None and mark is not None:
        made += mark.encode() + values(old)
    return made if new is None else made + b"N" + values(new)


def values(row: Values) -> bytes:
    texts = [(value if isinstance(value, str) else "").encode() for value in row]
    return struct.pack("!H", len(row)) + b"".join(
        b"n" if value is None else b"u" if value == UNSENT
        else b"t" + struct.pack("!I", len(text)) + text
        for value, text in zip(row, texts, strict=True)
    )  # fmt: skip


def told(kind: str, mark: str | None, old: Values | None, new: Values | None) -> list[tuple]:
    """The rows that a change is: what happened, the third column and the first."""
    rows = []
    if old is not None:
        rows.append((BEFORE if (kind, mark) == ("U", "O") else REMOVED, old[2], old[0]))
    if new is not None:
        third, first = (
            old[place] if new[place] == UNSENT and old is not None else new[place]
            for place in (2, 0)
        )  # fmt: skip
        rows.append((AFTER if kind == "U" else ADDED, third, first))
    return rows


@pytest.mark.parametrize(
    ("xid", "shown"), [(9, True), (10, False), (11, True), (12, False), (13, False)]
)
def test_a_snapshot_shows_what_had_ended_when_it_was_taken(xid: int, shown: bool):
    view = SnapshotView.of("10:13:10,12", until=100)
    assert view.shows(xid, 99) is shown
    assert view.shows(xid, 100) is False  # it committed later, whatever its number


def test_transactions_are_numbered_in_circles():
    wrapped = 5 * 2**32
    view = SnapshotView.of(f"{wrapped - 2}:{wrapped + 3}:{wrapped - 2},{wrapped + 1}", until=100)
    shown = {xid: view.shows(xid % 2**32, 1) for xid in range(wrapped - 4, wrapped + 5)}
    assert [xid - wrapped for xid, is_shown in shown.items() if is_shown] == [-4, -3, -1, 0, 2]


# A change: its kind, the mark of its old row (None for none), the old row and the new one.
OLD = st.tuples(*[st.one_of(st.none(), TEXTS)] * 3)
NEW = st.tuples(*[st.one_of(st.none(), st.just(UNSENT), TEXTS)] * 3)
CHANGES = st.one_of(
    st.tuples(st.just("I"), st.none(), st.none(), OLD),
    st.tuples(st.just("U"), st.none(), st.none(), OLD),
    st.tuples(st.just("U"), st.just("K"), OLD, OLD),
    st.tuples(st.just("U"), st.just("O"), OLD, NEW),
    st.tuples(st.just("D"), st.sampled_from("KO"), OLD, st.none()),
)


@given(st.lists(CHANGES, min_size=1))
@example([("U", "O", ("a", None, "c"), (UNSENT, UNSENT, "d")), ("I", None, None, ("", None, "x"))])
def test_rows_are_read_out_of_many_messages_at_once(changes: list[tuple]):
    rows = rows_of([message(*one) for one in changes], LAYOUT)
    expected = [row for one in changes for row in told(*one)]
    columns = [column.cast(pa.string()).to_pylist() for column in rows.columns]
    assert list(zip(rows.kinds.to_pylist(), *columns, strict=True)) == expected
    counts = [len(told(*one)) for one in changes]
    assert rows.messages.tolist() == [at for at, count in enumerate(counts) for _ in range(count)]


def test_a_large_value_that_nobody_sent_is_refused():
    changed = message("U", None, None, ("a", "b", UNSENT))
    with pytest.raises(UnrepresentableValueError, match="'third'"):
        rows_of([changed], LAYOUT)
    assert rows_of([message("U", None, None, ("a", UNSENT, "c"))], LAYOUT).kinds.to_pylist() == [2]


@pytest.mark.parametrize(
    "broken",
    [
        message("I", "O", ("a", "b", "c"), ("a", "b", "c")),
        message("I", None, None, ("a", "b")),
        message("I", None, None, ("a", "b", "c")) + b"more",
        message("I", None, None, ("a", "b", "c"))[:-1],
        message("I", None, None, ("a", "b", "c")).replace(b"t", b"b"),
        message("D", "X", ("a", "b", "c"), None),
    ],
)
def test_a_message_of_another_form_is_refused(broken: bytes):
    fine = message("I", None, None, ("a", "b", "c"))
    with pytest.raises(SourceError):
        rows_of([fine, broken, fine], LAYOUT)


@given(st.integers(0, 2**64 - 1))
def test_positions_survive_being_text(lsn: int):
    assert lsn_of(lsn_text(lsn)) == lsn
