"""Runs by the log of a real PostgreSQL: every change once, whatever happens on the way."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pyarrow as pa
import pytest

from matih_ray.errors import (
    ChangesLostError,
    PlanError,
    ReplicationNotReadyError,
    SourceChangedError,
    SourcePermissionError,
    UnrepresentableValueError,
    ValidationError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import UnitId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.planning.planner import make_plan
from matih_ray.sources.postgres.change_runs import plans
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.change_runs_lab import APPEND, MERGE, ChangeRuns, Merged, told

TABLE = "CREATE TABLE t (id int PRIMARY KEY, v text)"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    options = {"max_replication_slots": "60", "max_wal_senders": "20", "autovacuum": "off"}
    with PostgresServer(options=options) as server:
        server.execute("CREATE ROLE loader LOGIN REPLICATION; CREATE ROLE reader LOGIN")
        yield server


@pytest.fixture
def runs(server: PostgresServer) -> Iterator[ChangeRuns]:
    database = f"d{uuid.uuid4().hex[:8]}"
    server.create_database(database)
    opened = ChangeRuns(server, database, reader=database)
    yield opened
    with closing(opened.source()) as source:
        source.drop_log(UnitId("public.t"), opened.reader)


# --- append ----------------------------------------------------------------------------------


def test_what_was_there_comes_first_and_then_every_change_once(runs: ChangeRuns) -> None:
    runs.run_sql(f"{TABLE}; INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    assert sorted(told(runs.run(), "id", "v")) == [
        ("snapshot", 1, "a"), ("snapshot", 2, "b"), ("snapshot", 3, "c"),
    ]  # fmt: skip
    runs.run_sql("INSERT INTO t VALUES (4, 'd'); UPDATE t SET v = 'B' WHERE id = 2")
    runs.run_sql("DELETE FROM t WHERE id = 1; UPDATE t SET id = 30 WHERE id = 3")
    found = runs.run()
    assert told(found, "id", "v", "_deleted") == [
        ("insert", 4, "d", False),
        ("update", 2, "B", False),
        ("delete", 1, None, True),
        ("delete", 3, None, True),
        ("insert", 30, "c", False),
    ]
    assert len({row["_source_version"] for row in found}) == 5
    assert all(row["_committed_at"] is not None for row in found)
    assert runs.run() == []


def test_with_all_of_the_old_row_deletes_are_whole_and_updates_still_one_row(
    runs: ChangeRuns,
) -> None:
    runs.run_sql(f"{TABLE}; ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 'a')")
    runs.run()
    runs.run_sql("UPDATE t SET v = 'b'; UPDATE t SET id = 2; DELETE FROM t")
    assert told(runs.run(), "id", "v") == [
        ("update", 1, "b"), ("delete", 1, "b"), ("insert", 2, "b"), ("delete", 2, "b"),
    ]  # fmt: skip


def test_rows_that_change_while_the_first_run_reads_come_once(runs: ChangeRuns) -> None:
    runs.policy = APPEND.model_copy(update={"target_slice_rows": 1000})
    runs.run_sql(f"{TABLE}; INSERT INTO t SELECT n, 'x' FROM generate_series(1, 5000) n; ANALYZE t")
    first = runs.run(
        meanwhile="UPDATE t SET v = 'y' WHERE id % 100 = 0; DELETE FROM t WHERE id > 4990;"
        "INSERT INTO t VALUES (6000, 'z')"
    )
    assert runs.plan is not None
    assert len(runs.plan.slices) > 2
    assert Counter(row["v"] for row in first) == {"x": 5000}
    second = runs.run()
    assert Counter(row["_change"] for row in second) == {"update": 50, "delete": 10, "insert": 1}


def test_a_table_without_a_key_is_read_by_pages_of_the_same_snapshot(runs: ChangeRuns) -> None:
    runs.policy = APPEND.model_copy(update={"target_slice_rows": 1000})
    runs.run_sql(
        "CREATE TABLE t (id int, v text); ALTER TABLE t REPLICA IDENTITY FULL;"
        "INSERT INTO t SELECT n, 'x' FROM generate_series(1, 5000) n; ANALYZE t"
    )
    first = runs.run(meanwhile="UPDATE t SET v = 'y' WHERE id = 7")
    assert runs.plan is not None
    assert len(runs.plan.slices) > 2
    assert Counter(row["v"] for row in first) == {"x": 5000}
    assert told(runs.run(), "id", "v") == [("delete", 7, "x"), ("insert", 7, "y")]


@pytest.mark.parametrize("seed", range(2))
def test_transactions_under_way_at_any_moment_are_in_one_run_each(
    runs: ChangeRuns, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers go on while runs begin and end, and slices end anywhere in the log."""
    monkeypatch.setattr(plans, "LOG_SLICE_BYTES", 4096)
    runs.run_sql("CREATE TABLE t (id serial PRIMARY KEY, v text)")
    stop = threading.Event()

    def write(number: int) -> None:
        dice = random.Random(f"{seed} {number}")
        connection = runs.server.connect(runs.database, autocommit=False)
        while not stop.is_set():
            with connection.cursor() as cursor:
                for _ in range(dice.randrange(1, 30)):
                    cursor.execute("INSERT INTO t (v) VALUES (%s)", ["x" * dice.randrange(200)])
            connection.commit() if dice.random() < 0.8 else connection.rollback()
        connection.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    try:
        found = [row["id"] for _ in range(5) for row in runs.run()]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    found += [row["id"] for row in runs.run()]
    expected = [id_ for (id_,) in runs.run_sql("SELECT id FROM t ORDER BY id")]
    assert sorted(map(int, map(str, found))) == expected
    assert len(expected) > 100


# --- merge -----------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
@pytest.mark.parametrize("seed", range(3))
def test_a_merged_table_equals_the_source_after_every_run(
    runs: ChangeRuns, seed: int, identity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "LOG_SLICE_BYTES", 4096)
    dice = random.Random(f"{seed} {identity}")
    runs.policy = MERGE
    runs.run_sql(f"{TABLE}; ALTER TABLE t REPLICA IDENTITY {identity}")
    merged = Merged(("id",))
    connection = runs.server.connect(runs.database, autocommit=False)
    for _ in range(6):
        for _ in range(20):
            with connection.cursor() as cursor:
                for _ in range(dice.randrange(1, 6)):
                    cursor.execute(_statement(dice))
            connection.commit() if dice.random() < 0.9 else connection.rollback()
        merged.merge(runs.run())
        source = Counter(runs.run_sql("SELECT id, v FROM t"))
        assert merged.contents("id", "v") == source
    connection.close()


def _statement(dice: random.Random) -> str:
    one, other, text = dice.randrange(20), dice.randrange(20), f"v{dice.randrange(10**6)}"
    return dice.choice(
        [
            f"INSERT INTO t VALUES ({one}, '{text}') ON CONFLICT (id) DO UPDATE SET v = '{text}'",
            f"UPDATE t SET v = '{text}' WHERE id % 5 = {one % 5}",
            f"DELETE FROM t WHERE id = {one}",
            f"""UPDATE t SET id = {other} WHERE id = {one}
                AND NOT EXISTS (SELECT FROM t WHERE id = {other})""",
        ]
    )


def test_a_merge_needs_deleted_rows_to_be_known_by_its_key(runs: ChangeRuns) -> None:
    runs.run_sql("CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE)")
    runs.policy = MERGE.model_copy(update={"key_columns": ("code",)})
    with pytest.raises(ReplicationNotReadyError, match="REPLICA IDENTITY FULL"):
        runs.run()
    runs.run_sql("ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 'a')")
    runs.run()
    runs.run_sql("UPDATE t SET code = 'b'")
    assert told(runs.run(), "code") == [("delete", "a"), ("insert", "b")]


def test_partitions_are_read_as_the_table_that_they_are_of(runs: ChangeRuns) -> None:
    runs.policy = MERGE
    runs.run_sql(
        "CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20); INSERT INTO t VALUES (1, 'a')"
    )
    assert told(runs.run(), "id") == [("snapshot", 1)]
    runs.run_sql("INSERT INTO t VALUES (15, 'b'); UPDATE t SET id = 16 WHERE id = 1")
    assert told(runs.run(), "id") == [("insert", 15), ("delete", 1), ("insert", 16)]


# --- again, and never twice ------------------------------------------------------------------


def test_a_slice_that_is_read_again_has_the_same_rows(
    runs: ChangeRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Abandoned in its midst, read again by another process, planned again: nothing moves before
    it is confirmed."""
    package = "matih_ray.sources.postgres"
    monkeypatch.setattr(f"{package}.change_runs.reading.TARGET_BATCH_BYTES", 1000)
    monkeypatch.setattr(f"{package}.changes.replication.READ_BYTES", 1000)
    runs.run_sql(TABLE)
    runs.run()
    runs.run_sql("INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 500) n")
    with closing(runs.source()) as source:
        plan = runs.planned(source)
        unit = source.describe_unit(UnitId("public.t"))
        abandoned = source.read(unit, plan.slices[0], runs.policy)
        assert next(abandoned).num_rows < 500
        abandoned.close()
        first = pa.Table.from_batches(runs.read(source, plan))
    runs.run_sql("UPDATE t SET v = 'later'")
    with closing(runs.source()) as source:  # where batches end depends on how the bytes arrive
        assert pa.Table.from_batches(runs.read(source, plan)) == first
    assert first.num_rows == 500
    runs.commit(plan)
    assert Counter(row["_change"] for row in runs.run()) == {"update": 500}


def test_a_first_run_that_is_lost_begins_again(runs: ChangeRuns) -> None:
    runs.run_sql(f"{TABLE}; INSERT INTO t VALUES (1, 'a')")
    with closing(runs.source()) as source:
        plan = runs.planned(source)
        runs.read(source, plan)  # and never committed
    runs.run_sql("INSERT INTO t VALUES (2, 'b')")
    with closing(runs.source()) as source:  # the next owner has the same plan
        again = runs.read(source, plan)
        assert runs.plan is not None
        runs.commit(runs.plan)
    assert sum(batch.num_rows for batch in again) == 2
    runs.run_sql("INSERT INTO t VALUES (3, 'c')")
    assert told(runs.run(), "id") == [("insert", 3)]


# --- the slot --------------------------------------------------------------------------------


def test_an_idle_table_does_not_hold_back_the_log(runs: ChangeRuns) -> None:
    runs.run_sql(f"{TABLE}; CREATE TABLE other (v text)")
    runs.run()
    runs.run_sql("INSERT INTO other SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    assert runs.lag() > 20_000_000
    # the server forgets up to where it has last noted which transactions are under way
    runs.run_sql("CHECKPOINT")
    assert runs.run() == []
    assert runs.lag() < 1_000_000


def test_planning_alone_leaves_nothing_behind(runs: ChangeRuns) -> None:
    runs.run_sql(f"{TABLE}; INSERT INTO t VALUES (1, 'a')")
    with closing(runs.source()) as source:
        unit = source.describe_unit(UnitId("public.t"))
        plan = make_plan(source, unit, None, APPEND)
        (batch,) = [one for part in plan.slices for one in source.read(unit, part, APPEND)]
    assert batch.to_pylist()[0] == {
        "id": 1, "v": "a", "_change": "snapshot", "_deleted": False, "_committed_at": None,
        "_source_version": "0000000000000000.0000000000",
    }  # fmt: skip
    assert plan.cursor_column is None
    name = f"slot_name LIKE '%{runs.reader}'"
    assert runs.run_sql(f"SELECT 1 FROM pg_replication_slots WHERE {name}") == []
    assert runs.run_sql("SELECT 1 FROM pg_publication") == []


def test_dropping_a_log_leaves_nothing_behind(runs: ChangeRuns) -> None:
    runs.run_sql(TABLE)
    runs.run()
    with closing(runs.source()) as source:
        source.drop_log(UnitId("public.t"), runs.reader)
        source.drop_log(UnitId("public.t"), runs.reader)
    database = f"database = '{runs.database}'"
    assert runs.run_sql(f"SELECT 1 FROM pg_replication_slots WHERE {database}") == []
    assert runs.run_sql("SELECT 1 FROM pg_publication") == []


def test_a_lost_slot_is_no_gap(runs: ChangeRuns) -> None:
    runs.run_sql(TABLE)
    runs.run()
    runs.server.drop_slot(f"matih_{runs.reader}")
    runs.run_sql("INSERT INTO t VALUES (1, 'a')")
    with pytest.raises(ChangesLostError, match="Reset the checkpoint"):
        runs.run()
    runs.checkpoint = None  # as a reset does
    assert told(runs.run(), "id") == [("snapshot", 1)]


def test_what_others_confirmed_is_no_gap(runs: ChangeRuns) -> None:
    runs.run_sql(TABLE)
    runs.run()
    before = runs.checkpoint
    runs.run_sql("INSERT INTO t VALUES (1, 'a')")
    runs.run()
    runs.checkpoint = before  # as taking the run back does
    with pytest.raises(ChangesLostError, match="confirmed"):
        runs.run()


def test_another_cluster_is_no_gap(runs: ChangeRuns) -> None:
    runs.run_sql(TABLE)
    runs.run()
    assert runs.checkpoint is not None
    assert isinstance(runs.checkpoint.cursor, dict)
    cursor = {**runs.checkpoint.cursor, "system": "1"}
    runs.checkpoint = runs.checkpoint.model_copy(update={"cursor": cursor})
    with pytest.raises(ChangesLostError, match="cluster"):
        runs.run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("TRUNCATE t", "truncated"),
        ("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text)", "made again"),
        ("ALTER PUBLICATION {0} DROP TABLE t", "publication"),
    ],
)
def test_what_no_row_tells_of_stops_the_run(runs: ChangeRuns, change: str, message: str) -> None:
    runs.run_sql(f"{TABLE}; INSERT INTO t VALUES (1, 'a')")
    runs.run()
    runs.run_sql(change.format(f"matih_{runs.reader}"))
    with pytest.raises(SourceChangedError, match=message) as caught:
        runs.run()
    assert "checkpoint" in caught.value.message


# --- what the table is like ------------------------------------------------------------------


def test_columns_that_come_and_go(runs: ChangeRuns) -> None:
    runs.run_sql("CREATE TABLE t (id int PRIMARY KEY, v text, gone int)")
    runs.run()
    runs.run_sql("INSERT INTO t VALUES (1, 'a', 1); ALTER TABLE t ADD COLUMN more int")
    runs.run_sql("INSERT INTO t VALUES (2, 'b', 2, 20); ALTER TABLE t DROP COLUMN gone")
    runs.run_sql("ALTER TABLE t ALTER COLUMN id TYPE bigint; INSERT INTO t VALUES (3, 'c', 30)")
    assert told(runs.run(), "id", "v", "more") == [
        ("insert", 1, "a", None), ("insert", 2, "b", 20), ("insert", 3, "c", 30),
    ]  # fmt: skip


def test_a_type_that_meant_something_else_is_refused(runs: ChangeRuns) -> None:
    runs.run_sql("CREATE TABLE t (id int PRIMARY KEY, v text)")
    runs.run()
    runs.run_sql("INSERT INTO t VALUES (1, '1'); ALTER TABLE t ALTER v TYPE int USING v::int")
    with pytest.raises(SourceChangedError, match="'v'"):
        runs.run()


def test_a_large_value_that_an_update_left_alone_is_never_null(runs: ChangeRuns) -> None:
    runs.run_sql("CREATE TABLE t (id int PRIMARY KEY, v int, big text)")
    runs.run_sql("ALTER TABLE t ALTER big SET STORAGE EXTERNAL")
    runs.run_sql("INSERT INTO t VALUES (1, 1, repeat('x', 20000))")
    runs.run()
    runs.run_sql("ALTER TABLE t REPLICA IDENTITY FULL; UPDATE t SET v = 2")
    assert [len(str(row["big"])) for row in runs.run()] == [20_000]
    runs.run_sql("ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET v = 3")
    with pytest.raises(UnrepresentableValueError, match="REPLICA IDENTITY FULL"):
        runs.run()
    runs.policy = APPEND.model_copy(update={"columns": ("id", "v")})
    assert told(runs.run(), "v") == [("update", 3)]


def test_values_are_those_of_a_full_load(runs: ChangeRuns) -> None:
    runs.run_sql(
        "CREATE TABLE t (id int PRIMARY KEY, n numeric(30,9), b bytea, d date, z timestamptz,"
        "s timestamp, j jsonb, a int[], w text, u uuid, f float8, i interval, tm time)"
    )
    runs.run()
    runs.run_sql(
        "INSERT INTO t VALUES (1, 123456789012345678901.123456789, '\\x00ff', 'infinity',"
        "'2026-01-01 12:00:00.123456+02', '-infinity', '{\"a\": 1}', '{1,NULL}', E'a\\tb\\n\\\\',"
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 'NaN', '1 day 2 s', '24:00'),"
        "(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    )
    with closing(runs.source()) as source:
        batches = runs.read(source, runs.planned(source))
        unit = source.describe_unit(UnitId("public.t"))
        full = make_plan(source, unit, None, IngestionPolicy())
        (expected,) = source.read(unit, full.slices[0], IngestionPolicy())
    (found,) = batches
    found = found.select(expected.schema.names)
    for one, other in zip(found.columns, expected.columns, strict=True):
        if str(one.type) == "double":
            assert str(one) == str(other)  # NaN
        else:
            assert one.equals(other)


@pytest.mark.parametrize(
    ("ddl", "column"),
    [("id int PRIMARY KEY, price money", "price"), ("id int PRIMARY KEY, _deleted int", "_del")],
)
def test_columns_that_have_no_place_are_refused(runs: ChangeRuns, ddl: str, column: str) -> None:
    runs.run_sql(f"CREATE TABLE t ({ddl})")
    with closing(runs.source()) as source, pytest.raises(ValidationError, match=column):
        source.read_schema(source.describe_unit(UnitId("public.t")), APPEND)


# --- prerequisites ---------------------------------------------------------------------------


def test_what_is_missing_is_told_with_its_remedy(runs: ChangeRuns) -> None:
    runs.run_sql(f"{TABLE}; GRANT SELECT ON t TO reader, loader")
    runs.user = "reader"
    with pytest.raises(SourcePermissionError, match="ALTER ROLE reader REPLICATION"):
        runs.run()
    runs.user = "loader"
    with pytest.raises(SourcePermissionError, match=f"CREATE PUBLICATION matih_{runs.reader}"):
        runs.run()
    runs.run_sql(f"CREATE PUBLICATION matih_{runs.reader} FOR TABLE t")
    assert runs.run() == []
    runs.run_sql("INSERT INTO t VALUES (1, 'a')")
    assert told(runs.run(), "id") == [("insert", 1)]


def test_a_view_has_no_log(runs: ChangeRuns) -> None:
    runs.run_sql("CREATE VIEW t AS SELECT 1 AS id")
    with pytest.raises(ReplicationNotReadyError, match="only tables"):
        runs.run()


def test_a_server_without_logical_log_says_what_to_set() -> None:
    with PostgresServer(options={"wal_level": "replica"}) as server:
        runs = ChangeRuns(server, "postgres")
        runs.run_sql(TABLE)
        with pytest.raises(ReplicationNotReadyError, match="wal_level = logical"):
            runs.run()


# --- policies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        {"writeMode": "overwrite"},
        {"mode": "cdm"},
        {"cursorColumn": "id"},
        {"writeMode": "merge", "deleteColumn": "gone"},
    ],
)
def test_policies_that_do_not_fit_a_log_are_refused(policy: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="runMode=cdc"):
        IngestionPolicy.from_json({"runMode": "cdc", **policy})


def test_a_count_of_a_log_is_refused(runs: ChangeRuns) -> None:
    runs.run_sql(TABLE)
    runs.policy = APPEND.model_copy(update={"exact_count": True})
    with pytest.raises(PlanError, match="counted"):
        runs.run()


def test_a_run_by_the_log_does_not_go_on_behind_another_load(runs: ChangeRuns) -> None:
    runs.run_sql(TABLE)
    runs.checkpoint = Checkpoint(cursor="5", cursor_column="id")
    with pytest.raises(PlanError, match="reset the checkpoint"):
        runs.run()
    assert APPEND.run_mode is RunMode.CDC
