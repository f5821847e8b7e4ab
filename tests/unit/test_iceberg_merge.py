"""Keys of a merge: who wins, who is late, what is refused."""

from __future__ import annotations

from datetime import date

import numpy as np
import pyarrow as pa
import pydantic
import pytest

from matih_ray.errors import NullKeyError, ValidationError
from matih_ray.model.policy import IngestionPolicy, MergeRule, WriteMode
from matih_ray.sinks.iceberg.merge_keys import Incoming, KeyIndex, check_rule, refuse_nulls
from matih_ray.sinks.iceberg.merge_work import pack, unpack

BY_ID = MergeRule(key=("id",), order="v", delete="gone")


def rows(*values: tuple[object, ...]) -> pa.Table:
    names = ("id", "v", "gone")
    return pa.table({name: [row[n] for row in values] for n, name in enumerate(names)})


def test_the_newest_version_wins_and_of_equal_ones_the_last():
    incoming = Incoming(
        BY_ID,
        rows((1, 5, False), (1, 4, False), (2, 3, False), (2, 3, False), (3, None, False)),
    )
    assert incoming.losers().tolist() == [False, True, True, False, False]


def test_deletions_are_seen_by_nobody_and_an_older_one_deletes_nothing():
    incoming = Incoming(BY_ID, rows((1, 5, True), (2, 4, True), (2, 6, False)))
    assert incoming.losers().tolist() == [True, True, False]


def test_rows_of_the_table_stay_only_if_they_are_newer():
    incoming = Incoming(BY_ID, rows((1, 5, False), (2, 5, False), (3, None, False), (4, 1, True)))
    held = rows((1, 5, None), (2, 6, None), (3, 1, None), (4, None, None), (5, 0, None))
    found = incoming.meet(held)
    assert found.replaced.tolist() == [True, False, False, True, False]
    assert sorted(found.late.tolist()) == [1, 2]


@pytest.mark.parametrize(
    "values",
    [
        [1, 2**63 - 1, -(2**63), 1],
        ["a", "", "a\0", "a"],
        [b"\0", b"", b"\0\0", b"\0"],
        [date(2026, 1, 1), date(1, 1, 1), date(9999, 1, 1), date(2026, 1, 1)],
    ],
    ids=["integers", "texts", "bytes", "dates"],
)
def test_keys_of_many_columns_are_told_apart_exactly(values):
    keys = pa.table({"a": values, "b": [7, 7, 7, 8], "c": values[::-1]})
    index = KeyIndex(keys)
    assert index.count == 4
    assert index.find(keys).tolist() == index.codes.tolist()
    other = keys.set_column(1, "b", pa.array([8, 8, 8, 7]))
    assert index.find(other).tolist() == [index.codes[3], -1, -1, index.codes[0]]


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (MergeRule(key=("price",)), "keyColumns"),
        (MergeRule(key=("tags",)), "keyColumns"),
        (MergeRule(key=("nowhere",)), "keyColumns"),
        (MergeRule(key=("id",), order="price"), "orderColumn"),
        (MergeRule(key=("id",), delete="name"), "deleteColumn"),
        (MergeRule(key=("id",), delete="id"), "deleteColumn"),
        (MergeRule(key=("id",), order="id"), "orderColumn"),
    ],
)
def test_columns_that_cannot_do_it_are_refused_by_field(rule, field):
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("name", pa.string()),
            ("price", pa.float64()),
            ("tags", pa.list_(pa.string())),
        ]
    )
    with pytest.raises(ValidationError) as refused:
        check_rule(rule, schema)
    assert refused.value.context["field"] == field


def test_null_keys_are_refused_with_their_column():
    batch = pa.RecordBatch.from_pydict({"id": [1, None], "v": [None, 1]})
    with pytest.raises(NullKeyError, match="'id'"):
        refuse_nulls(MergeRule(key=("id",)), batch, "slice a")
    refuse_nulls(MergeRule(key=("id",)), batch.slice(0, 1), "slice a")


@pytest.mark.parametrize("seed", range(3))
def test_masks_survive_being_text(seed):
    mask = np.random.default_rng(seed).random(1001 + seed) < 0.1
    assert (unpack(pack(mask), len(mask)) == mask).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"write_mode": WriteMode.APPEND, "key_columns": ("id",)},
        {"order_column": "v"},
        {"write_mode": WriteMode.MERGE, "key_columns": ("id", "id")},
        {"write_mode": WriteMode.MERGE, "key_columns": ("id",), "columns": ("v",)},
    ],
)
def test_policies_that_contradict_themselves_are_refused(wrong):
    with pytest.raises(pydantic.ValidationError):
        IngestionPolicy(**wrong)
