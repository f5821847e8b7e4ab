"""Incremental plans against a real server: ties, NULL cursors, late commits, look-back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import pytest

from matih_ray.errors import NullCursorError, OpenTransactionError, PlanError, ValidationError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.postgres import PostgresSource
from matih_ray.sources.postgres.incremental import MAX_UNINDEXED_SLICES
from matih_ray.testing.devstack.postgres import PostgresServer

BY_ID = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id")
BY_TIME = BY_ID.model_copy(update={"cursor_column": "at"})


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(options={"max_prepared_transactions": "4"}) as server:
        yield server


def spec_of(server: PostgresServer, user: str = "postgres") -> EndpointSpec:
    return EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="POSTGRESQL",
        config={"host": server.host, "port": server.port, "database": "postgres", "user": user},
    )


@pytest.fixture
def source(server: PostgresServer) -> Iterator[PostgresSource]:
    source = PostgresSource(spec_of(server))
    yield source
    source.close()


@pytest.fixture
def table(server: PostgresServer, request: pytest.FixtureRequest) -> str:
    """An empty table of its own for each test."""
    name = request.node.name.partition("[")[0][:60]
    server.execute(f"DROP TABLE IF EXISTS {name}")
    server.execute(
        f"CREATE TABLE {name} (id bigserial PRIMARY KEY, at timestamptz DEFAULT now(), note text)"
    )
    return f"public.{name}"


class Stream:
    """Runs one unit again and again, the way a planner does: plan, read, move the checkpoint."""

    def __init__(
        self, source: PostgresSource, unit_id: str, policy: IngestionPolicy, target_rows: int = 1000
    ) -> None:
        self.source = source
        self.policy = policy
        self.target_rows = target_rows
        self.unit = source.describe_unit(UnitId(unit_id))
        self.checkpoint: Checkpoint | None = None
        self.loaded: Counter[tuple[object, ...]] = Counter()

    def plan(self) -> IngestionPlan:
        return self.source.plan_incremental_slices(
            self.unit, self.checkpoint, self.policy, self.target_rows
        )

    def run(self) -> IngestionPlan:
        """One run; rows that a slice is to be de-duplicated on are dropped if loaded before."""
        plan = self.plan()
        cursor = None if self.checkpoint is None else self.checkpoint.cursor
        for slice_ in plan.slices:
            rows: Counter[tuple[object, ...]] = Counter()
            for batch in self.source.read(self.unit, slice_, self.policy):
                columns = [column.to_pylist() for column in batch.columns]
                rows.update(zip(*columns, strict=True))
            if slice_.dedupe_on:
                rows -= self.loaded
            self.loaded += rows
            cursor = slice_.cursor_after or cursor
        details = plan.statistics["checkpointDetails"]
        assert isinstance(details, dict)
        self.checkpoint = Checkpoint(
            cursor=cursor, cursor_column=plan.cursor_column, details=details
        )
        return plan

    def ids(self) -> list[object]:
        return sorted(row[0] for row in self.loaded.elements())  # type: ignore[type-var]


def ids_in(server: PostgresServer, table: str) -> list[object]:
    return [row[0] for row in server.execute(f"SELECT id FROM {table} ORDER BY id")]


def test_runs_read_each_row_once(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    stream = Stream(source, table, BY_ID)
    assert stream.run().slices == ()
    for rows in (2500, 1, 1500):
        server.execute(f"INSERT INTO {table} (note) SELECT n FROM generate_series(1, {rows}) n")
        assert stream.run().slices
        assert stream.ids() == ids_in(server, table)
    nothing = stream.run()
    assert nothing.slices == ()
    assert nothing.statistics["upper"] is None
    assert stream.checkpoint is not None
    assert stream.checkpoint.cursor == "4001"


def test_ties_within_a_run_are_never_split_or_doubled(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    server.execute(
        f"INSERT INTO {table} (at) SELECT timestamptz '2024-01-01' + (n / 700) * interval '1 day' "
        "FROM generate_series(1, 5000) n"
    )
    stream = Stream(source, table, BY_TIME, target_rows=500)
    plan = stream.run()
    assert len(plan.slices) > 3
    for before, after in pairwise(plan.slices):
        assert before.params["upper"] == after.params["lower"]
        assert before.params["lower"] != before.params["upper"]
    assert stream.ids() == ids_in(server, table)


def test_the_upper_bound_is_fixed_before_reading(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    server.execute(f"INSERT INTO {table} (note) VALUES ('planned')")
    stream = Stream(source, table, BY_ID)
    plan = stream.plan()
    server.execute(f"INSERT INTO {table} (note) VALUES ('after planning')")
    (slice_,) = plan.slices
    (batch,) = source.read(stream.unit, slice_, BY_ID)
    assert batch.column("note").to_pylist() == ["planned"]
    assert slice_.cursor_after == "1"


@pytest.mark.parametrize(
    ("sql_type", "values"),
    [
        ("smallint", ["-5", "0", "7"]),
        ("numeric", ["-1.5", "1.10", "1e30"]),
        ("double precision", ["-0.1", "0.30000000000000004", "1e300"]),
        ("date", ["'4000-01-01 BC'", "'2024-01-01'", "'12345-01-01'"]),
        ("timestamp", ["'-infinity'", "'2024-01-01 00:00:00.000001'", "'2024-01-02'"]),
        ("uuid", ["'00000000-0000-0000-0000-000000000001'",
                  "'a0000000-0000-0000-0000-00000000000f'"]),
        ("text", ["'a''b'", r"E'a\\b\n'", "'zz'", "'ß'"]),
        ('text COLLATE "C"', ["'B'", "'a'"]),
        ("bytea", [r"'\x00'", r"'\xff5c'"]),
        ("interval", ["'1 day'", "'1 month'"]),
        ("char(4)", ["'a'", "'b'"]),
    ],
)  # fmt: skip
def test_a_cursor_may_have_any_type_with_an_order(
    server: PostgresServer, source: PostgresSource, sql_type: str, values: list[str]
) -> None:
    server.execute(f"DROP TABLE IF EXISTS typed; CREATE TABLE typed (id serial, c {sql_type})")
    policy = BY_ID.model_copy(update={"cursor_column": "c", "encodings": {"c": "text"}})
    stream = Stream(source, "public.typed", policy)
    for count, value in enumerate(values, start=1):
        server.execute(f"INSERT INTO typed (c) VALUES ({value})")
        stream.run()
        assert len(stream.ids()) == count
        assert stream.run().slices == ()


@pytest.mark.parametrize(
    ("sql_type", "literal"),
    [("json", "'{}'"), ("point", "'(1,2)'"), ("timestamp", "'infinity'"), ("numeric", "'NaN'")],
)
def test_a_cursor_without_order_or_end_is_refused(
    server: PostgresServer, source: PostgresSource, sql_type: str, literal: str
) -> None:
    server.execute(f"DROP TABLE IF EXISTS bad; CREATE TABLE bad (id int, c {sql_type})")
    server.execute(f"INSERT INTO bad VALUES (1, {literal})")
    policy = BY_ID.model_copy(update={"cursor_column": "c"})
    with pytest.raises(PlanError) as caught:
        Stream(source, "public.bad", policy).plan()
    assert caught.value.context["column"] == "c"


@pytest.mark.parametrize("column", [None, "absent"])
def test_a_missing_cursor_column_is_refused_with_candidates(
    source: PostgresSource, table: str, column: str | None
) -> None:
    policy = BY_ID.model_copy(update={"cursor_column": column})
    with pytest.raises((PlanError, ValidationError), match="id"):
        Stream(source, table, policy).plan()


@pytest.mark.parametrize("cursor", ["not a number", 5, "1); DROP TABLE x; --"])
def test_a_checkpoint_that_is_not_of_the_column_is_refused(
    source: PostgresSource, table: str, cursor: str | int
) -> None:
    stream = Stream(source, table, BY_ID)
    stream.checkpoint = Checkpoint(cursor=cursor, cursor_column="id")
    with pytest.raises(PlanError, match="reset"):
        stream.plan()


def test_rows_without_cursor_are_loaded_once_and_new_ones_are_noticed(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    server.execute(
        f"INSERT INTO {table} (at) VALUES (NULL), ('2024-01-01'), (NULL), ('2024-01-02')"
    )
    stream = Stream(source, table, BY_TIME)
    plan = stream.run()
    assert [s.params["kind"] for s in plan.slices] == ["null", "range"]
    assert stream.ids() == [1, 2, 3, 4]
    server.execute(f"INSERT INTO {table} (at) VALUES ('2024-01-03')")
    stream.run()
    assert stream.ids() == [1, 2, 3, 4, 5]
    server.execute(f"INSERT INTO {table} (at) VALUES (NULL)")
    with pytest.raises(NullCursorError) as caught:
        stream.plan()
    assert caught.value.context["rows"] == 3
    assert "nullCursor=ignore" in str(caught.value)


def test_rows_without_cursor_are_refused_or_left_out_as_the_policy_says(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    refusing = BY_TIME.model_copy(update={"null_cursor": NullCursor.REFUSE})
    ignoring = BY_TIME.model_copy(update={"null_cursor": NullCursor.IGNORE})
    server.execute(f"INSERT INTO {table} (at) VALUES ('2024-01-01')")
    assert len(Stream(source, table, refusing).run().slices) == 1
    server.execute(f"INSERT INTO {table} (at) VALUES (NULL)")
    with pytest.raises(NullCursorError):
        Stream(source, table, refusing).plan()
    stream = Stream(source, table, ignoring)
    assert "left out" in stream.run().notes[0]
    assert stream.ids() == [1]
    # Changing one's mind later loads them, once: they were never counted as loaded before.
    for policy in (BY_TIME, ignoring, BY_TIME):
        stream.policy = policy
        stream.run()
        assert stream.ids() == [1, 2]


@pytest.mark.parametrize("policy", [BY_ID, BY_TIME], ids=["sequence", "timestamptz"])
def test_a_transaction_that_commits_late_is_waited_for(
    server: PostgresServer, source: PostgresSource, table: str, policy: IngestionPolicy
) -> None:
    stream = Stream(source, table, policy)
    late = server.connect(autocommit=False)
    late.cursor().execute(f"INSERT INTO {table} (note) VALUES ('late')")
    server.execute(f"INSERT INTO {table} (note) VALUES ('early')")
    commit = threading.Timer(0.5, late.commit)
    commit.start()
    plan = stream.run()
    commit.join()
    late.close()
    assert plan.statistics["upper"] is not None
    assert stream.ids() == [1, 2]


def test_a_transaction_that_stays_open_stops_a_sequence_cursor(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    stream = Stream(source, table, BY_ID.model_copy(update={"open_transaction_wait_s": 0.1}))
    late = server.connect(autocommit=False)
    late.cursor().execute(f"INSERT INTO {table} (note) VALUES ('late')")
    server.execute(f"INSERT INTO {table} (note) VALUES ('early')")
    with pytest.raises(OpenTransactionError) as caught:
        stream.plan()
    assert caught.value.context["transactions"] == 1
    late.commit()
    late.close()
    stream.run()
    assert stream.ids() == [1, 2]


@pytest.mark.parametrize("wrote", [True, False], ids=["after writing", "before writing"])
def test_a_transaction_that_stays_open_lowers_a_timestamptz_bound(
    server: PostgresServer, source: PostgresSource, table: str, *, wrote: bool
) -> None:
    stream = Stream(source, table, BY_TIME.model_copy(update={"open_transaction_wait_s": 0.1}))
    server.execute(f"INSERT INTO {table} (note) VALUES ('before')")
    late = server.connect(autocommit=False)
    cursor = late.cursor()
    cursor.execute("SELECT now()")  # fixes its time, and takes no transaction id
    if wrote:
        cursor.execute(f"INSERT INTO {table} (note) VALUES ('late')")
    server.execute(f"INSERT INTO {table} (note) VALUES ('after')")
    plan = stream.run()
    assert "open transaction" in plan.notes[0]
    assert [row[2] for row in stream.loaded] == ["before"]
    assert stream.run().slices == ()  # still nothing that is safe to read
    if not wrote:
        cursor.execute(f"INSERT INTO {table} (note) VALUES ('late')")
    late.commit()
    late.close()
    assert stream.run().notes == ()
    assert stream.ids() == ids_in(server, table)
    assert len(stream.ids()) == 3


@pytest.mark.parametrize("sql_type", ["timestamp", "date"])
def test_times_without_zone_are_lowered_far_enough_for_any_zone(
    server: PostgresServer, source: PostgresSource, sql_type: str
) -> None:
    server.execute(f"DROP TABLE IF EXISTS local; CREATE TABLE local (id serial, at {sql_type})")
    server.execute("INSERT INTO local (at) VALUES ('2024-01-01')")
    stream = Stream(
        source, "public.local", BY_TIME.model_copy(update={"open_transaction_wait_s": 0.1})
    )
    late = server.connect(autocommit=False)
    cursor = late.cursor()
    cursor.execute("SET timezone = 'Etc/GMT+12'; INSERT INTO local (at) VALUES (now())")
    server.execute("SET timezone = 'UTC'; INSERT INTO local (at) VALUES (now())")
    stream.run()
    assert stream.ids() == [1]
    late.commit()
    late.close()
    stream.run()
    assert len(stream.ids()) == (3 if sql_type == "timestamp" else len(ids_in(server, "local")))


def test_a_prepared_transaction_is_waited_for_and_never_guessed_at(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    stream = Stream(source, table, BY_TIME.model_copy(update={"open_transaction_wait_s": 0.1}))
    server.execute(f"BEGIN; INSERT INTO {table} (note) VALUES ('late'); PREPARE TRANSACTION 'p1'")
    server.execute(f"INSERT INTO {table} (note) VALUES ('early')")
    with pytest.raises(OpenTransactionError, match="1 of them prepared"):
        stream.plan()
    server.execute("COMMIT PREPARED 'p1'")
    stream.run()
    assert stream.ids() == [1, 2]


def test_other_databases_and_plain_readers_hold_nothing_up(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    server.execute("CREATE DATABASE elsewhere")
    writer = server.connect("elsewhere", autocommit=False)
    writer.cursor().execute("CREATE TABLE t (id int)")
    reader = server.connect(autocommit=False)
    reader.cursor().execute("SELECT 1")
    server.execute(f"INSERT INTO {table} (note) VALUES ('early')")
    policy = BY_ID.model_copy(update={"open_transaction_wait_s": 0.0})
    stream = Stream(source, table, policy)
    assert stream.run().notes == ()
    assert stream.ids() == [1]
    writer.close()
    reader.close()


def test_a_role_that_cannot_see_other_sessions_waits_and_then_says_why(
    server: PostgresServer, table: str
) -> None:
    server.execute(
        f"DROP ROLE IF EXISTS blind; CREATE ROLE blind LOGIN; GRANT SELECT ON {table} TO blind"
    )
    source = PostgresSource(spec_of(server, "blind"))
    stream = Stream(source, table, BY_TIME.model_copy(update={"open_transaction_wait_s": 0.1}))
    other = server.connect(autocommit=False)
    other.cursor().execute("SELECT now()")
    server.execute(f"INSERT INTO {table} (note) VALUES ('early')")
    with pytest.raises(OpenTransactionError, match="pg_read_all_stats"):
        stream.plan()
    other.rollback()
    other.close()
    stream.run()
    assert stream.ids() == [1]
    source.close()


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "keyless"])
def test_a_look_back_finds_what_committed_below_the_cursor(
    server: PostgresServer, source: PostgresSource, table: str, *, keyed: bool
) -> None:
    if not keyed:
        server.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table.partition('.')[2]}_pkey")
    policy = BY_ID.model_copy(update={"late_commits": LateCommits.LOOKBACK, "lookback": 2.0})
    stream = Stream(source, table, policy)
    server.execute(f"INSERT INTO {table} (id, note) VALUES (1, 'a'), (4, 'd')")
    stream.run()
    server.execute(f"INSERT INTO {table} (id, note) VALUES (2, 'too late'), (3, 'late'), (5, 'e')")
    plan = stream.run()
    assert plan.slices[0].dedupe_on == (("id",) if keyed else ("id", "at", "note"))
    assert plan.slices[0].params["lower"] == ["2"]
    assert plan.slices[0].cursor_after is None
    assert stream.ids() == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("sql_type", "value", "lookback", "lower"),
    [
        ("timestamptz", "'2024-01-02'", 1.5, "2024-01-01 23:59:58.5+00"),
        ("timestamp", "'2024-01-02'", 86_400.0, "2024-01-01 00:00:00"),
        ("date", "'2024-01-02'", 3600.0, "2024-01-01"),
        ("smallint", "-32768", 10.0, "-32768"),
        ("bigint", "7", 0.5, "6"),
        ("numeric", "1.10", 0.1, "1.00"),
    ],
)
def test_look_back_is_measured_in_the_cursors_units(
    server: PostgresServer,
    source: PostgresSource,
    sql_type: str,
    value: str,
    lookback: float,
    lower: str,
) -> None:
    server.execute(f"DROP TABLE IF EXISTS back; CREATE TABLE back (id int, c {sql_type})")
    server.execute(f"INSERT INTO back VALUES (1, {value})")
    policy = BY_ID.model_copy(
        update={"cursor_column": "c", "late_commits": LateCommits.LOOKBACK, "lookback": lookback}
    )
    stream = Stream(source, "public.back", policy)
    stream.run()
    assert stream.plan().slices[0].params["lower"] == [lower]


def test_look_back_in_text_is_refused(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    server.execute(f"INSERT INTO {table} (note) VALUES ('x')")
    policy = BY_ID.model_copy(
        update={"cursor_column": "note", "late_commits": LateCommits.LOOKBACK, "lookback": 1.0}
    )
    stream = Stream(source, table, policy)
    stream.run()
    with pytest.raises(PlanError, match="look-back"):
        stream.plan()


def test_many_new_rows_are_cut_and_each_slice_moves_the_cursor(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    server.execute(f"INSERT INTO {table} (note) SELECT n FROM generate_series(1, 20000) n")
    plan = Stream(source, table, BY_ID, target_rows=2000).plan()
    assert len(plan.slices) == 10
    assert [s.cursor_after for s in plan.slices] == [str(n) for n in range(2000, 20001, 2000)]


def test_a_cursor_without_index_is_cut_into_few_slices(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    server.execute(
        f"INSERT INTO {table} (at) SELECT timestamptz '2024-01-01' + n * interval '1 second' "
        "FROM generate_series(1, 20000) n"
    )
    stream = Stream(source, table, BY_TIME, target_rows=1000)
    plan = stream.plan()
    assert len(plan.slices) == MAX_UNINDEXED_SLICES
    assert "no index" in plan.notes[-1]
    server.execute(f"CREATE INDEX ON {table} (at DESC, note)")
    assert len(stream.run().slices) == 20
    assert stream.ids() == ids_in(server, table)


def test_views_have_incremental_runs_too(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    server.execute(f"CREATE OR REPLACE VIEW evens AS SELECT id, note FROM {table} WHERE id % 2 = 0")
    server.execute(f"INSERT INTO {table} (note) SELECT n FROM generate_series(1, 10) n")
    stream = Stream(source, "public.evens", BY_ID, target_rows=2)
    stream.run()
    assert stream.ids() == [2, 4, 6, 8, 10]
    assert stream.run().slices == ()
    server.execute("DROP VIEW evens")


def test_an_exact_count_counts_what_the_plan_reads(
    server: PostgresServer, source: PostgresSource, table: str
) -> None:
    server.execute(f"INSERT INTO {table} (note) SELECT n FROM generate_series(1, 10) n")
    policy = BY_ID.model_copy(update={"exact_count": True})
    stream = Stream(source, table, policy)
    stream.checkpoint = Checkpoint(cursor="4", cursor_column="id")
    assert stream.plan().statistics["exactRows"] == 6
