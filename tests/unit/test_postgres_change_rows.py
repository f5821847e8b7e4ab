"""Rows of a log: what they are called, and which version is newer. No database."""

from __future__ import annotations

from datetime import datetime, timezone

import pyarrow as pa
import pytest

from matih_ray.sources.postgres.change_runs.rows import (
    FIELDS,
    Numbering,
    changed_rows,
    snapshot_rows,
    version,
)
from matih_ray.sources.postgres.changes.messages import Begin
from matih_ray.sources.postgres.changes.transactions import ADDED, AFTER, BEFORE, REMOVED

FIRST, SECOND = Begin(0xFF, 0, 1), Begin(0x1_0000_0000, 1_000_000, 2)


def rows(
    ids: list[int], kinds: list[int], pairs: list[int], key: tuple[str, ...] = ("id",)
) -> list[tuple[object, ...]]:
    batch = pa.record_batch({"id": pa.array(ids, pa.int32())})
    found = changed_rows(
        batch, pa.array(kinds, pa.int8()), [FIRST] * len(ids), pairs, key, Numbering()
    )
    return [(row["_change"], row["id"], row["_deleted"]) for row in found.to_pylist()]


def test_an_update_is_one_row_unless_its_key_changes():
    kinds = [BEFORE, AFTER, BEFORE, AFTER]
    assert rows([1, 1, 2, 3], kinds, [0, 2]) == [
        ("update", 1, False), ("delete", 2, True), ("insert", 3, False),
    ]  # fmt: skip


def test_a_delete_before_an_update_of_another_row_stays_what_it_is():
    assert rows([1, 2], [REMOVED, AFTER], []) == [("delete", 1, True), ("update", 2, False)]
    assert rows([1, 2], [REMOVED, AFTER], [0]) == [("delete", 1, True), ("insert", 2, False)]


def test_without_a_key_an_update_tells_both_rows():
    assert rows([1, 1], [BEFORE, AFTER], [0], key=()) == [
        ("delete", 1, True), ("insert", 1, False),
    ]  # fmt: skip


def test_versions_grow_over_transactions_and_batches():
    numbering = Numbering()
    found = numbering.versions([FIRST, FIRST])
    found += numbering.versions([FIRST, SECOND])
    assert found == sorted(set(found))
    assert version(0xFF, 0) < found[0]
    assert found[2] == "00000000000000FF.0000000003"


@pytest.mark.parametrize("count", [0, 3])
def test_rows_have_the_declared_columns(count: int):
    batch = pa.record_batch({"id": pa.array(range(count), pa.int32())})
    expected = pa.schema([*batch.schema, *FIELDS])
    there = snapshot_rows(batch, 5)
    kinds = pa.array([ADDED] * count, pa.int8())
    changed = changed_rows(batch, kinds, [SECOND] * count, [], ("id",), Numbering())
    assert there.schema == changed.schema == expected
    assert [row["_committed_at"] for row in there.to_pylist()] == [None] * count
    assert [row["_committed_at"] for row in changed.to_pylist()] == [
        datetime(2000, 1, 1, 0, 0, 1, tzinfo=timezone.utc)
    ] * count
