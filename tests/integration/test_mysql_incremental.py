"""Key ranges and incremental plans on a real MariaDB: ties, NULLs, late commits, look-back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from matih_ray.errors import (
    NullCursorError,
    OpenTransactionError,
    PlanError,
    SourcePermissionError,
)
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.ids import EndpointId, TenantId, UnitId
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy, LateCommits, NullCursor, RunMode
from matih_ray.model.value import JsonValue
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.mysql import MySqlSource
from matih_ray.testing.devstack.mariadb import MariaDbMissingError, MariaDbServer

FULL = IngestionPolicy()
BY_ID = IngestionPolicy(run_mode=RunMode.INCREMENTAL, cursor_column="id")
BY_TIME = BY_ID.model_copy(update={"cursor_column": "at"})
ZERO_ROW = "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'"


@pytest.fixture(scope="module")
def server() -> Iterator[MariaDbServer]:
    try:
        server = MariaDbServer()
    except MariaDbMissingError as missing:
        pytest.skip(str(missing))
    with server:
        server.execute("CREATE DATABASE shop")
        yield server


def source_at(server: MariaDbServer, user: str = "root") -> MySqlSource:
    return MySqlSource(
        EndpointSpec(
            tenant_id=TenantId("tenant"),
            endpoint_id=EndpointId("endpoint"),
            name="test",
            type="MYSQL",
            config={"host": server.host, "port": server.port, "database": "shop", "user": user},
        )
    )


@pytest.fixture
def source(server: MariaDbServer) -> Iterator[MySqlSource]:
    source = source_at(server)
    yield source
    source.close()


@pytest.fixture
def table(server: MariaDbServer) -> str:
    """An empty table."""
    server.execute(
        "DROP TABLE IF EXISTS shop.t",
        "CREATE TABLE shop.t (id bigint unsigned AUTO_INCREMENT PRIMARY KEY, "
        "at datetime(6) NULL DEFAULT NOW(6), note text, KEY (at))",
    )
    return "shop.t"


class Stream:
    """Runs one unit again and again, the way a planner does: plan, read, move the checkpoint."""

    def __init__(
        self, source: MySqlSource, unit_id: str, policy: IngestionPolicy, target_rows: int = 1000
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
        details = plan.statistics.get("checkpointDetails")
        self.checkpoint = Checkpoint(
            cursor=cursor,
            cursor_column=plan.cursor_column,
            details=details if isinstance(details, dict) else {},
        )
        return plan

    def ids(self) -> list[object]:
        return sorted(row[0] for row in self.loaded.elements())  # type: ignore[type-var]


def insert(server: MariaDbServer, values: str, columns: str = "id, note") -> None:
    server.execute(ZERO_ROW, f"INSERT INTO shop.t ({columns}) VALUES {values}")


# --- ranges of keys --------------------------------------------------------------------------

# Column definitions, key, and an expression of `seq` that is distinct for each.
KEYS = {
    "int": ("k int", "k", "CAST(seq AS SIGNED) * 7 - 9000"),
    "bigint unsigned": ("k bigint unsigned", "k", "18446744073709551615 - seq"),
    "decimal": ("k decimal(20,4)", "k", "seq / 10000 - 0.1"),
    "datetime": ("k datetime(3)", "k", "timestamp('2024-03-31') + INTERVAL seq SECOND"),
    "timestamp": ("k timestamp", "k", "timestamp('2024-03-31') + INTERVAL seq SECOND"),
    "text": ("k varchar(20)", "k", "CONCAT(IF(seq % 2, 'a', 'B'), seq, '''\\\\ é')"),
    "latin1": ("k char(20) CHARACTER SET latin1", "k", "CONCAT('é', seq)"),
    "case": ("k varchar(20) COLLATE utf8mb4_bin", "k", "CONCAT(IF(seq % 2, 'a', 'A'), seq)"),
    "binary": ("k binary(16)", "k", "UNHEX(MD5(seq))"),
    "two columns": ("k int, l varchar(9)", "k, l", "seq % 3, CONCAT('x', seq)"),
    "year": ("k year, l int", "k, l", "IF(seq % 3, 1999 + seq % 3, '0000'), seq"),
    "date first": ("k date, l int", "k, l", "date('2024-01-01') + INTERVAL seq % 2 DAY, seq"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_of_any_kind_is_cut_into_disjoint_slices_that_cover_it(
    server: MariaDbServer, source: MySqlSource, kind: str
) -> None:
    columns, key, values = KEYS[kind]
    server.execute(
        "SET time_zone = '+00:00'",
        "DROP TABLE IF EXISTS keyed",
        f"CREATE TABLE keyed (n int, {columns}, PRIMARY KEY ({key})) CHARACTER SET utf8mb4",
        f"INSERT INTO keyed SELECT seq, {values} FROM seq_1_to_2500",
        database="shop",
    )
    stream = Stream(source, "shop.keyed", FULL, 1000)
    plan = stream.run()
    assert [slice_.estimated_rows for slice_ in plan.slices] == [1000, 1000, 500]
    assert stream.ids() == list(range(1, 2501))
    assert plan.statistics["totalRows"] == 2500


def test_zero_dates_are_bounds_like_others(server: MariaDbServer, source: MySqlSource) -> None:
    server.execute(
        "SET sql_mode = ''",
        "CREATE OR REPLACE TABLE shop.keyed (id int, c datetime, KEY (c))",
        "INSERT INTO shop.keyed VALUES (1, '0000-00-00'), (2, '2024-01-01'), (3, '2024-00-00')",
    )
    policy = BY_ID.model_copy(update={"cursor_column": "c", "encodings": {"c": "text"}})
    stream = Stream(source, "shop.keyed", policy, 1)
    plan = stream.run()
    assert [slice_.cursor_after for slice_ in plan.slices] == [
        "0000-00-00 00:00:00",
        "2024-00-00 00:00:00",
        "2024-01-01 00:00:00",
    ]
    assert stream.ids() == [1, 2, 3]


def test_what_is_not_committed_is_not_read_whatever_the_server_does_by_default(
    server: MariaDbServer, table: str
) -> None:
    insert(server, "(1, 'committed')")
    server.execute("SET GLOBAL TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")
    other = server.connect(autocommit=False)
    other.query("INSERT INTO shop.t (id, note) VALUES (2, 'not committed')")
    source = source_at(server)
    stream = Stream(source, table, FULL)
    stream.run()
    assert stream.ids() == [1]
    source.close()
    other.close()
    server.execute("SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def test_the_last_slice_is_open_and_none_is_empty(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    insert(server, ", ".join(f"({n}, 'x')" for n in range(1, 2001)))
    stream = Stream(source, table, FULL, 1000)
    plan = stream.plan()
    assert [slice_.estimated_rows for slice_ in plan.slices] == [1000, 1000]
    assert plan.slices[-1].params["upper"] is None
    insert(server, "(5000, 'new')")
    read = [b.num_rows for s in plan.slices for b in source.read(stream.unit, s, FULL)]
    assert read == [1000, 1001]


def test_a_unique_index_without_nulls_serves_as_key(
    server: MariaDbServer, source: MySqlSource
) -> None:
    for definition, slices in (
        ("k int NOT NULL, UNIQUE (k)", 3),
        ("k int NULL, UNIQUE (k)", 1),
        ("k varchar(50) NOT NULL, UNIQUE (k(5))", 1),
        ("k double NOT NULL, PRIMARY KEY (k)", 1),
    ):
        server.execute(
            "DROP TABLE IF EXISTS keyed",
            f"CREATE TABLE keyed ({definition})",
            "INSERT INTO keyed SELECT seq + 10000 FROM seq_1_to_25",
            database="shop",
        )
        stream = Stream(source, "shop.keyed", FULL, 10)
        assert len(stream.run().slices) == slices, definition
        assert stream.loaded.total() == 25


def test_a_view_and_a_table_without_key_are_one_slice_and_say_so(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    insert(server, "(1, 'a'), (2, 'b'), (3, 'c')")
    server.execute("CREATE OR REPLACE VIEW shop.v AS SELECT * FROM shop.t WHERE id > 1")
    stream = Stream(source, "shop.v", FULL, 1)
    plan = stream.run()
    assert (len(plan.slices), stream.ids()) == (1, [2, 3])
    assert "one slice" in plan.notes[0]


# --- cursors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [BY_ID, BY_TIME], ids=["number", "time"])
def test_runs_take_only_what_is_new(
    server: MariaDbServer, source: MySqlSource, table: str, policy: IngestionPolicy
) -> None:
    stream = Stream(source, table, policy, 2)
    assert stream.run().slices == ()
    for expected in (5, 5, 8):
        count = expected - len(stream.ids())
        for _ in range(count):
            server.execute("INSERT INTO shop.t (note) VALUES ('x')")
        plan = stream.run()
        assert len(plan.slices) == -(-count // 2)
        assert stream.ids() == list(range(1, expected + 1))


def test_ties_of_a_cursor_are_never_torn_apart(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    server.execute(
        "INSERT INTO shop.t (at) SELECT timestamp('2024-01-01') + INTERVAL seq DIV 700 DAY "
        "FROM mysql.seq_1_to_2000"
    )
    stream = Stream(source, table, BY_TIME, 500)
    plan = stream.run()
    assert len(plan.slices) == 3
    assert stream.ids() == list(range(1, 2001))
    assert stream.run().slices == ()


def test_the_greatest_unsigned_number_is_a_cursor(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    insert(server, "(9223372036854775808, 'a'), (18446744073709551614, 'b')")
    stream = Stream(source, table, BY_ID)
    stream.run()
    assert stream.checkpoint is not None
    assert stream.checkpoint.cursor == "18446744073709551614"
    assert stream.run().slices == ()


@pytest.mark.parametrize("cursor", ["not a number", 5, "1); DROP TABLE t; --", "1.5", ""])
def test_a_checkpoint_that_is_not_of_the_column_is_refused(
    source: MySqlSource, table: str, cursor: JsonValue
) -> None:
    stream = Stream(source, table, BY_ID)
    stream.checkpoint = Checkpoint(cursor=cursor, cursor_column="id")
    with pytest.raises(PlanError, match="reset"):
        stream.plan()


@pytest.mark.parametrize("column", [None, "note"])
def test_what_cannot_be_a_cursor_is_refused_with_candidates(
    source: MySqlSource, table: str, column: str | None
) -> None:
    stream = Stream(source, table, BY_ID.model_copy(update={"cursor_column": column}))
    with pytest.raises(PlanError, match="candidates: id, at"):
        stream.plan()


def test_rows_without_cursor_are_loaded_once_and_new_ones_are_noticed(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    insert(server, "(1, NULL), (2, '2024-01-01'), (3, NULL)", "id, at")
    stream = Stream(source, table, BY_TIME)
    assert [s.params["kind"] for s in stream.run().slices] == ["null", "range"]
    insert(server, "(4, '2024-01-02')", "id, at")
    stream.run()
    assert stream.ids() == [1, 2, 3, 4]
    insert(server, "(5, NULL)", "id, at")
    with pytest.raises(NullCursorError) as caught:
        stream.plan()
    assert caught.value.context["rows"] == 3
    refusing = BY_TIME.model_copy(update={"null_cursor": NullCursor.REFUSE})
    with pytest.raises(NullCursorError):
        Stream(source, table, refusing).plan()
    ignoring = Stream(source, table, BY_TIME.model_copy(update={"null_cursor": NullCursor.IGNORE}))
    assert "left out" in ignoring.run().notes[0]
    assert ignoring.ids() == [2, 4]


# --- late commits ----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [BY_ID, BY_TIME], ids=["number", "time"])
def test_a_transaction_that_commits_late_is_waited_for(
    server: MariaDbServer, source: MySqlSource, table: str, policy: IngestionPolicy
) -> None:
    stream = Stream(source, table, policy)
    late = server.connect(autocommit=False)
    late.query("INSERT INTO shop.t (note) VALUES ('late')")
    server.execute("INSERT INTO shop.t (note) VALUES ('early')")
    commit = threading.Timer(1.0, late.commit)
    commit.start()
    stream.run()
    commit.join()
    late.close()
    assert stream.ids() == [1, 2]


def test_a_transaction_that_stays_open_stops_the_run(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    stream = Stream(source, table, BY_ID.model_copy(update={"open_transaction_wait_s": 0.2}))
    late = server.connect(autocommit=False)
    late.query("INSERT INTO shop.t (note) VALUES ('late')")
    server.execute("INSERT INTO shop.t (note) VALUES ('early')")
    with pytest.raises(OpenTransactionError) as caught:
        stream.plan()
    assert caught.value.context["transactions"] == 1
    late.commit()
    late.close()
    stream.run()
    assert stream.ids() == [1, 2]


def test_a_prepared_transaction_is_waited_for(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    stream = Stream(source, table, BY_ID.model_copy(update={"open_transaction_wait_s": 0.2}))
    other = server.connect()
    for statement in (
        "XA START 'x'", "INSERT INTO shop.t (note) VALUES ('late')", "XA END 'x'", "XA PREPARE 'x'",
    ):  # fmt: skip
        other.query(statement)
    other.close()
    server.execute("INSERT INTO shop.t (note) VALUES ('early')")
    with pytest.raises(OpenTransactionError):
        stream.plan()
    server.execute("XA COMMIT 'x'")
    stream.run()
    assert stream.ids() == [1, 2]


def test_open_readers_hold_nothing_up(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    server.execute("INSERT INTO shop.t (note) VALUES ('early')")
    reader = server.connect(autocommit=False)
    reader.query("SELECT * FROM shop.t")
    policy = BY_ID.model_copy(update={"open_transaction_wait_s": 0.0})
    stream = Stream(source, table, policy)
    stream.run()
    assert stream.ids() == [1]
    reader.close()


def test_times_of_whole_seconds_are_not_missed_within_their_second(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    server.execute("ALTER TABLE shop.t MODIFY at datetime NULL DEFAULT NOW()")
    stream = Stream(source, table, BY_TIME)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            server.execute("INSERT INTO shop.t (note) VALUES ('x')")

    writer = threading.Thread(target=write)
    writer.start()
    for _ in range(3):
        stream.run()
    stop.set()
    writer.join()
    stream.run()
    ((count,),) = server.execute("SELECT COUNT(*) FROM shop.t")
    assert stream.ids() == list(range(1, int(str(count)) + 1))


def test_an_account_that_cannot_see_transactions_is_told_what_to_do(
    server: MariaDbServer, table: str
) -> None:
    server.execute("CREATE OR REPLACE USER blind@'%'", "GRANT SELECT ON shop.* TO blind@'%'")
    insert(server, "(1, 'a')")
    source = source_at(server, "blind")
    with pytest.raises(SourcePermissionError, match="PROCESS"):
        Stream(source, table, BY_ID).plan()
    ignoring = Stream(source, table, BY_ID.model_copy(update={"late_commits": LateCommits.IGNORE}))
    ignoring.run()
    assert ignoring.ids() == [1]
    source.close()


def test_a_server_that_refuses_writes_is_noted(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    insert(server, "(1, 'a')")
    server.execute("SET GLOBAL read_only = ON")
    try:
        assert "replica" in Stream(source, table, BY_ID).plan().notes[0]
    finally:
        server.execute("SET GLOBAL read_only = OFF")


@pytest.mark.parametrize("keyed", [True, False], ids=["keyed", "keyless"])
def test_a_look_back_finds_what_committed_below_the_cursor(
    server: MariaDbServer, source: MySqlSource, table: str, *, keyed: bool
) -> None:
    if not keyed:
        server.execute("ALTER TABLE shop.t MODIFY id bigint unsigned, DROP PRIMARY KEY")
    policy = BY_ID.model_copy(update={"late_commits": LateCommits.LOOKBACK, "lookback": 2.0})
    stream = Stream(source, table, policy)
    insert(server, "(1, 'a'), (4, 'd')")
    stream.run()
    insert(server, "(2, 'too late'), (3, 'late'), (5, 'e')")
    plan = stream.run()
    assert plan.slices[0].dedupe_on == (("id",) if keyed else ("id", "at", "note"))
    assert plan.slices[0].params["lower"] == ["2"]
    assert plan.slices[0].cursor_after is None
    assert stream.ids() == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("sql_type", "value", "lookback", "lower"),
    [
        ("timestamp(6) NULL", "'2024-01-02'", 1.5, "2024-01-01 23:59:58.500000"),
        ("datetime", "'2024-01-02'", 86_400.0, "2024-01-01 00:00:00.000000"),
        ("datetime", "'0001-01-01'", 5.0, "0001-01-01 00:00:00.000000"),
        ("date", "'2024-01-02'", 3600.0, "2024-01-01"),
        ("tinyint", "-128", 10.0, "-138"),
        ("bigint", "7", 0.5, "6"),
        ("decimal(10,2)", "1.10", 0.1, "1.00"),
        ("decimal(10,2)", "1.10", 0.001, "1.09"),
    ],
)
def test_look_back_is_measured_in_the_cursors_units(
    server: MariaDbServer,
    source: MySqlSource,
    sql_type: str,
    value: str,
    lookback: float,
    lower: str,
) -> None:
    server.execute(
        "SET time_zone = '+00:00'",
        "DROP TABLE IF EXISTS shop.back",
        f"CREATE TABLE shop.back (id int, c {sql_type})",
        f"INSERT INTO shop.back VALUES (1, {value})",
    )
    policy = BY_ID.model_copy(
        update={"cursor_column": "c", "late_commits": LateCommits.LOOKBACK, "lookback": lookback}
    )
    stream = Stream(source, "shop.back", policy)
    stream.run()
    assert stream.plan().slices[0].params["lower"] == [lower]
    stream.run()
    assert stream.ids() == [1]


def test_look_back_in_text_is_refused(server: MariaDbServer, source: MySqlSource) -> None:
    server.execute(
        "CREATE OR REPLACE TABLE shop.back (id int, c varchar(9))",
        "INSERT INTO shop.back VALUES (1, 'x')",
    )
    policy = BY_ID.model_copy(
        update={"cursor_column": "c", "late_commits": LateCommits.LOOKBACK, "lookback": 1.0}
    )
    stream = Stream(source, "shop.back", policy)
    stream.run()
    with pytest.raises(PlanError, match="look-back"):
        stream.plan()


def test_a_cursor_without_index_is_one_slice_and_says_so(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    server.execute("ALTER TABLE shop.t DROP KEY at")
    insert(server, ", ".join(f"({n}, '2024-01-01')" for n in range(1, 50)), "id, at")
    stream = Stream(source, table, BY_TIME, 10)
    plan = stream.run()
    assert (len(plan.slices), len(stream.ids())) == (1, 49)
    assert "no index" in plan.notes[-1]


def test_an_exact_count_counts_what_the_plan_reads(
    server: MariaDbServer, source: MySqlSource, table: str
) -> None:
    insert(server, ", ".join(f"({n}, 'x')" for n in range(1, 11)))
    stream = Stream(source, table, BY_ID.model_copy(update={"exact_count": True}))
    stream.checkpoint = Checkpoint(cursor="4", cursor_column="id")
    assert stream.plan().statistics["exactRows"] == 6
