"""Snapshots by their text, and rows as lines of COPY: what needs no server."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matih_ray.sources.postgres.changes.messages import lsn_of, lsn_text
from matih_ray.sources.postgres.changes.transactions import copy_line
from matih_ray.sources.postgres.changes.visibility import SnapshotView
from matih_ray.sources.postgres.decoding import BlockDecoder

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


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


@given(st.lists(st.lists(st.one_of(st.none(), TEXTS), min_size=3, max_size=3), min_size=1))
def test_a_row_survives_being_a_line(rows: list[list[str | None]]):
    lines = [copy_line([None if v is None else v.encode() for v in row]) for row in rows]
    schema = pa.schema([(name, pa.string()) for name in "abc"])
    batch = BlockDecoder(schema).decode(b"".join(lines))
    assert [list(row.values()) for row in batch.to_pylist()] == rows


@given(st.integers(0, 2**64 - 1))
def test_positions_survive_being_text(lsn: int):
    assert lsn_of(lsn_text(lsn)) == lsn
