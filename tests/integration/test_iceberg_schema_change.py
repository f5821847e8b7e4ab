"""Rows that arrive with other columns or types than the table has, policy by policy."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal

import duckdb
import pyarrow as pa
import pytest

from matih_ray.errors import MatihError, SchemaMismatchError
from matih_ray.model.maintenance import MaintenancePolicy, MaintenanceTask
from matih_ray.model.policy import MergeRule, SchemaChange, WriteMode
from matih_ray.settings import Settings
from matih_ray.sinks.base import PreparedTarget
from matih_ray.sinks.iceberg import IcebergSink
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.testing.contracts.sink_lab import TENANT, marker, target, write

EVOLVE, FREEZE, FAIL = SchemaChange.EVOLVE, SchemaChange.FREEZE, SchemaChange.FAIL
DISCARD_VALUE, DISCARD_ROW = SchemaChange.DISCARD_VALUE, SchemaChange.DISCARD_ROW
COMPACT = MaintenancePolicy(tasks=(MaintenanceTask.COMPACT,), min_files=2)


class Loads:
    """Loads of one table, one after the other, each with its own schema."""

    def __init__(self, settings: Settings, **options) -> None:
        self.settings = settings
        self.first = target(**options)
        self.runs = 0
        self.prepared: PreparedTarget | None = None

    def sink(self) -> IcebergSink:
        return IcebergSink.from_settings(self.settings, TENANT)

    def load(self, rows: pa.Table, change: SchemaChange = EVOLVE):
        """Load a table in a run of its own; returns the receipt."""
        self.runs += 1
        sink = self.sink()
        wanted = target(
            self.first.path,
            schema=rows.schema,
            mode=self.first.write_mode,
            merge=self.first.merge,
            partition_by=self.first.partition_by,
        )
        changed = replace(wanted, schema_change=change)
        self.prepared = sink.prepare(changed)
        receipt = write(sink, self.prepared, rows.combine_chunks().to_batches())
        sink.commit(self.prepared, [receipt], marker(1, run=f"run {self.runs}"))
        return receipt

    def table(self):
        assert self.prepared is not None
        catalog = open_catalog(CatalogConfig.from_settings(self.settings))
        return catalog.load_table(tuple(self.prepared.payload["identifier"]))

    def rows(self) -> list[dict]:
        return sorted(self.table().scan().to_arrow().to_pylist(), key=lambda row: row["id"])

    def types(self) -> dict[str, str]:
        return {field.name: str(field.field_type) for field in self.table().schema().fields}

    def compact(self) -> None:
        assert self.prepared is not None
        name = ".".join(self.prepared.payload["identifier"][1:])
        report = self.sink().maintain(name, COMPACT, datetime.now(timezone.utc))
        assert report.error is None
        assert report.compaction.files_after == 1


@pytest.fixture
def loads(tmp_path) -> Loads:
    return Loads(Settings(home=tmp_path / "lake"))


def ids(*values: int) -> pa.Array:
    return pa.array(values, pa.int64())


# --- evolve


def test_a_new_column_is_added_and_old_rows_have_null_there(loads):
    loads.load(pa.table({"id": ids(1)}))
    loads.load(pa.table({"id": ids(2), "name": ["two"]}))
    assert loads.rows() == [{"id": 1, "name": None}, {"id": 2, "name": "two"}]
    loads.compact()
    assert loads.rows() == [{"id": 1, "name": None}, {"id": 2, "name": "two"}]


def test_a_column_that_the_source_drops_is_null_in_new_rows(loads):
    loads.load(pa.table({"id": ids(1), "name": ["one"]}))
    loads.load(pa.table({"id": ids(2)}))
    assert loads.rows() == [{"id": 1, "name": "one"}, {"id": 2, "name": None}]


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (pa.array([1], pa.int32()), pa.array([2**40], pa.int64()), "long"),
        (pa.array([0.5], pa.float32()), pa.array([0.1], pa.float64()), "double"),
        (
            pa.array([Decimal("1.25")], pa.decimal128(5, 2)),
            pa.array([Decimal("123456789.25")], pa.decimal128(18, 2)),
            "decimal(18, 2)",
        ),
    ],
)
def test_a_type_is_widened_and_every_value_stays_exact(loads, before, after, kind):
    loads.load(pa.table({"id": ids(1), "v": before}))
    loads.load(pa.table({"id": ids(2), "v": after}))
    loads.load(pa.table({"id": ids(3), "v": before}))
    values = [before[0].as_py(), after[0].as_py(), before[0].as_py()]
    assert [row["v"] for row in loads.rows()] == values
    assert loads.types()["v"] == kind
    loads.compact()
    assert [row["v"] for row in loads.rows()] == values


def test_nested_fields_are_added_and_widened_and_files_can_be_rewritten(loads):
    old = pa.struct([("a", pa.int32()), ("gone", pa.string())])
    new = pa.struct([("a", pa.int64()), ("b", pa.struct([("c", pa.string())]))])
    loads.load(
        pa.table(
            {
                "id": ids(1),
                "s": pa.array([{"a": 1, "gone": "x"}], old),
                "l": pa.array([[{"a": 1, "gone": "y"}, None]], pa.list_(old)),
                "m": pa.array([[("k", {"a": 1, "gone": "z"})]], pa.map_(pa.string(), old)),
            }
        )
    )
    loads.load(
        pa.table(
            {
                "id": ids(2),
                "s": pa.array([{"a": 2**40, "b": {"c": "new"}}], new),
                "l": pa.array([[{"a": 2, "b": None}]], pa.list_(new)),
                "m": pa.array([[("k", {"a": 3, "b": {"c": "m"}})]], pa.map_(pa.string(), new)),
            }
        )
    )
    expected = [
        {
            "id": 1,
            "s": {"a": 1, "gone": "x", "b": None},
            "l": [{"a": 1, "gone": "y", "b": None}, None],
            "m": [("k", {"a": 1, "gone": "z", "b": None})],
        },
        {
            "id": 2,
            "s": {"a": 2**40, "gone": None, "b": {"c": "new"}},
            "l": [{"a": 2, "gone": None, "b": None}],
            "m": [("k", {"a": 3, "gone": None, "b": {"c": "m"}})],
        },
    ]
    assert loads.rows() == expected
    loads.compact()
    assert loads.rows() == expected
    (path,) = [task.file.file_path for task in loads.table().scan().plan_files()]
    found = duckdb.read_parquet(path).order("id").project("id, s.a, s.b.c").fetchall()
    assert found == [(1, 1, None), (2, 2**40, "new")]


def test_a_value_of_another_type_goes_to_a_column_of_its_own(loads):
    loads.load(pa.table({"id": ids(1), "v": ids(7)}))
    loads.load(pa.table({"id": ids(2), "v": ["seven"]}))
    loads.load(pa.table({"id": ids(3), "v": [b"7"]}))
    loads.load(pa.table({"id": ids(4), "v": ["eight"]}))
    loads.load(pa.table({"id": ids(5), "v": ids(9)}))
    assert loads.types() == {
        "id": "long",
        "v": "long",
        "v__string": "string",
        "v__binary": "binary",
    }
    shown = [(row["v"], row["v__string"], row["v__binary"]) for row in loads.rows()]
    assert shown == [
        (7, None, None),
        (None, "seven", None),
        (None, None, b"7"),
        (None, "eight", None),
        (9, None, None),
    ]


def test_nested_values_of_another_shape_go_to_a_column_of_their_own(loads):
    loads.load(pa.table({"id": ids(1), "v": pa.array([{"a": 1}])}))
    loads.load(pa.table({"id": ids(2), "v": pa.array([{"a": "x"}])}))
    loads.load(pa.table({"id": ids(3), "v": pa.array([[1, 2]])}))
    assert set(loads.types()) == {"id", "v", "v__struct", "v__list"}
    assert loads.rows()[1]["v__struct"] == {"a": "x"}
    with pytest.raises(SchemaMismatchError, match="taken"):
        loads.load(pa.table({"id": ids(4), "v": pa.array([{"a": b"y"}])}))


def test_columns_that_another_engine_made_required_become_optional(loads):
    loads.load(pa.table({"id": ids(1), "name": ["one"]}))
    with loads.table().update_schema(allow_incompatible_changes=True) as update:
        update.update_column("id", required=True)
        update.update_column("name", required=True)
    with pytest.raises(SchemaMismatchError, match="required"):
        loads.load(pa.table({"id": ids(2), "name": ["two"]}), FREEZE)
    loads.load(pa.table({"id": ids(2)}))
    assert [field.required for field in loads.table().schema().fields] == [False, False]
    assert loads.rows()[1] == {"id": 2, "name": None}


def test_what_rows_are_told_apart_by_must_keep_its_type(tmp_path):
    rule = MergeRule(key=("id",), order="v")
    loads = Loads(Settings(home=tmp_path), mode=WriteMode.MERGE, merge=rule)
    loads.load(pa.table({"id": ids(1), "v": ids(1)}))
    for columns in ({"id": ["1"], "v": ids(2)}, {"id": ids(1), "v": ["2"]}):
        with pytest.raises(SchemaMismatchError, match="told apart"):
            loads.load(pa.table(columns))


def test_a_merge_updates_rows_of_an_older_schema(tmp_path):
    rule = MergeRule(key=("id",))
    loads = Loads(Settings(home=tmp_path), mode=WriteMode.MERGE, merge=rule)
    narrow = pa.array(range(10), pa.int32())
    loads.load(pa.table({"id": narrow, "s": pa.array([{"a": n} for n in range(10)])}))
    rows = {"id": ids(3, 2**40), "s": pa.array([{"a": 30, "b": "x"}, None]), "new": [1, 2]}
    loads.load(pa.table(rows))
    found = {row["id"]: (row["s"], row["new"]) for row in loads.rows()}
    assert len(found) == 11
    assert found[2] == ({"a": 2, "b": None}, None)
    assert found[3] == ({"a": 30, "b": "x"}, 1)
    assert found[2**40] == (None, 2)


def test_a_writer_that_began_before_a_change_still_commits(loads):
    loads.load(pa.table({"id": ids(1)}))
    other = loads.sink()
    mine = other.prepare(target(loads.first.path, schema=pa.schema([("id", pa.int64())]), unit="b"))
    receipt = write(other, mine, pa.table({"id": ids(3)}).to_batches())
    loads.load(pa.table({"id": ids(2), "name": ["two"]}))
    other.commit(mine, [receipt], marker(1, run="other"))
    assert [row["name"] for row in loads.rows()] == [None, "two", None]


def test_runs_that_change_a_table_at_once_agree(loads):
    loads.load(pa.table({"id": ids(1)}))
    errors: list[MatihError] = []

    def prepare(number: int) -> None:
        schema = pa.schema([("id", pa.int64()), ("same", pa.string()), (f"c{number}", pa.int64())])
        wanted = target(loads.first.path, schema=schema, unit=f"unit {number}")
        try:
            loads.sink().prepare(replace(wanted, schema_change=EVOLVE))
        except MatihError as error:
            errors.append(error)

    threads = [threading.Thread(target=prepare, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(loads.types()) == {"id", "same", "c0", "c1", "c2", "c3"}


# --- the table stays


def test_a_frozen_table_takes_what_it_knows(loads):
    loads.load(pa.table({"id": ids(1), "name": ["one"]}))
    loads.load(pa.table({"extra": [1], "id": ids(2)}), FREEZE)
    assert loads.rows() == [{"id": 1, "name": "one"}, {"id": 2, "name": None}]
    with pytest.raises(SchemaMismatchError, match="name"):
        loads.load(pa.table({"id": ids(3), "name": ids(3)}), FREEZE)
    with pytest.raises(SchemaMismatchError, match="'id' is string"):
        loads.load(pa.table({"id": ["x"]}), FREEZE)


def test_nested_fields_that_a_frozen_table_lacks_are_left_out(loads):
    loads.load(pa.table({"id": ids(1), "s": pa.array([{"a": 1, "z": 1}])}))
    loads.load(pa.table({"id": ids(2), "s": pa.array([{"a": 2, "b": "x"}])}), FREEZE)
    assert loads.rows()[1]["s"] == {"a": 2, "z": None}


def test_values_without_a_place_become_null_and_are_counted(loads):
    loads.load(
        pa.table({"id": ids(1), "n": pa.array([1], pa.int32()), "d": pa.array([Decimal("1.5")])})
    )
    receipt = loads.load(
        pa.table(
            {
                "id": ids(2, 3, 4),
                "n": ids(2, 2**40, -5),
                "d": pa.array([Decimal("2.50"), Decimal("2.55"), None]),
                "extra": ["a", "b", None],
            }
        ),
        DISCARD_VALUE,
    )
    shown = [(row["id"], row["n"], row["d"]) for row in loads.rows()]
    assert shown[1:] == [(2, 2, Decimal("2.5")), (3, None, None), (4, -5, None)]
    assert set(loads.types()) == {"id", "n", "d"}
    assert (receipt.rows, receipt.rows_discarded, receipt.values_discarded) == (3, 0, 2)


def test_text_is_not_read_as_a_number(loads):
    loads.load(pa.table({"id": ids(1), "n": ids(1)}))
    receipt = loads.load(pa.table({"id": ids(2, 3), "n": ["2", None]}), DISCARD_VALUE)
    assert [row["n"] for row in loads.rows()] == [1, None, None]
    assert receipt.values_discarded == 1


def test_rows_without_a_place_are_left_out_and_counted(loads):
    loads.load(pa.table({"id": ids(1), "n": pa.array([1], pa.int32())}))
    receipt = loads.load(
        pa.table(
            {
                "id": ids(2, 3, 4, 5),
                "n": ids(2, 2**40, None, 5),
                "extra": pa.array([None, None, None, "x"]),
            }
        ),
        DISCARD_ROW,
    )
    assert [(row["id"], row["n"]) for row in loads.rows()] == [(1, 1), (2, 2), (4, None)]
    assert (receipt.rows, receipt.rows_discarded) == (2, 2)


def test_any_difference_is_refused_where_asked(loads):
    loads.load(pa.table({"id": ids(1), "name": ["one"]}))
    for columns in ({"id": ids(2)}, {"id": ids(2), "name": ["x"], "more": [1]}, {"id": ["2"]}):
        with pytest.raises(SchemaMismatchError):
            loads.load(pa.table(columns), FAIL)
