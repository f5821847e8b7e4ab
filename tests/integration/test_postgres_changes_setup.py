"""What must be so before changes can be read: what is not is told with what to do about it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from matih_ray.errors import (
    AuthenticationFailedError,
    ChangesLostError,
    ConnectionRefusedByHostError,
    MatihError,
    OpenTransactionError,
    ReplicationNotReadyError,
    SourceChangedError,
    SourcePermissionError,
    SqlInvalidError,
    SqlNotSupportedError,
    UnknownUnitError,
    UnrepresentableValueError,
)
from matih_ray.sources.postgres.changes import slots, snapshot
from matih_ray.streaming.connectors.postgres_cdc import PostgresChangesReader
from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.changes_lab import ChangesLab, read, rows_of, until_caught_up

SLOTS = 2


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    options = {
        "max_replication_slots": str(SLOTS),
        "max_slot_wal_keep_size": "1MB",
        "wal_keep_size": "0",
        "max_wal_size": "32MB",
        "min_wal_size": "32MB",
    }
    with PostgresServer(options=options) as server:
        server.execute(
            "CREATE ROLE reader LOGIN REPLICATION; CREATE ROLE plain LOGIN; "
            "CREATE ROLE owner LOGIN REPLICATION"
        )
        yield server


@pytest.fixture
def lab(server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[ChangesLab]:
    number = abs(hash(request.node.name)) % 10**9
    lab = ChangesLab(server, f"db{number}", f"slot{number}")
    server.create_database(lab.database)
    lab.run("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a')")
    yield lab
    for (slot,) in lab.run("SELECT slot_name FROM pg_replication_slots"):
        server.drop_slot(str(slot))


@pytest.mark.parametrize(
    ("setup", "error", "remedy"),
    [
        (
            "ALTER TABLE t DROP CONSTRAINT t_pkey",
            ReplicationNotReadyError,
            "REPLICA IDENTITY FULL, or add a primary key",
        ),
        ("ALTER TABLE t REPLICA IDENTITY NOTHING", ReplicationNotReadyError, "IDENTITY FULL"),
        ("ALTER TABLE t SET UNLOGGED", ReplicationNotReadyError, "SET LOGGED"),
        ("CREATE PUBLICATION {slot}", ReplicationNotReadyError, "ADD TABLE public.t"),
        (
            "CREATE PUBLICATION {slot} FOR TABLE t WITH (publish = 'insert')",
            ReplicationNotReadyError,
            "publish = 'insert, update",
        ),
        (
            "CREATE PUBLICATION {slot} FOR TABLE t WHERE (id > 5)",
            ReplicationNotReadyError,
            "leaves out rows",
        ),
        (
            "CREATE PUBLICATION {slot} FOR TABLE t (id)",
            ReplicationNotReadyError,
            "leaves out column 'v'",
        ),
        (
            "ALTER TABLE t RENAME TO u; CREATE VIEW t AS SELECT * FROM u",
            ReplicationNotReadyError,
            "is a view",
        ),
        ("DROP TABLE t", UnknownUnitError, "no table or view public.t"),
        ("ALTER TABLE t DROP COLUMN v", SourceChangedError, "no column 'v'"),
        ("ALTER TABLE t ALTER id TYPE text", SourceChangedError, "STRING takes everything"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_told_with_a_remedy(
    lab: ChangesLab, setup: str, error: type[MatihError], remedy: str
):
    lab.run(setup.format(slot=lab.slot))
    with pytest.raises(error, match=remedy.replace("(", r"\(")), lab.opened():
        pass
    assert lab.run("SELECT count(*) FROM pg_replication_slots") == [(0,)]


@pytest.mark.parametrize(
    ("role", "setup", "remedy"),
    [
        ("plain", "GRANT SELECT ON t TO plain", "ALTER ROLE plain REPLICATION"),
        ("reader", "SELECT 1", "GRANT SELECT ON public.t"),
        ("reader", "GRANT SELECT ON t TO reader", "CREATE PUBLICATION slot"),
    ],
)
def test_a_role_that_may_not_is_told_with_a_remedy(
    lab: ChangesLab, role: str, setup: str, remedy: str
):
    lab.run(setup)
    with pytest.raises(SourcePermissionError, match=remedy), lab.opened(username=role):
        pass


def test_a_role_that_row_security_hides_rows_from_is_refused(lab: ChangesLab):
    lab.run("GRANT SELECT ON t TO reader; ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    with pytest.raises(ReplicationNotReadyError, match="BYPASSRLS"), lab.opened(username="reader"):
        pass


def test_a_role_that_owns_the_table_needs_nothing_else(lab: ChangesLab):
    lab.run(f'ALTER DATABASE "{lab.database}" OWNER TO owner; ALTER TABLE t OWNER TO owner')
    with lab.opened(username="owner") as reader:
        assert read(reader, 1) == [("+I", 1, "a")]


def test_a_publication_that_is_there_is_used(lab: ChangesLab):
    lab.run("GRANT SELECT ON t TO reader; CREATE PUBLICATION everything FOR ALL TABLES")
    told = {"username": "reader", "debezium__publication__name": "everything"}
    with lab.opened(**told) as reader:
        read(reader, 1)
        lab.run("CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)")
        lab.run("INSERT INTO t VALUES (2, 'b')")
        assert read(reader, 1) == [("+I", 2, "b")]


def test_the_rows_of_partitions_are_those_of_the_table(lab: ChangesLab):
    lab.run(
        "DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);"
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10);"
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (10) TO (20); INSERT INTO t VALUES (1, 'a')"
    )
    with lab.opened() as reader:
        read(reader, 1)
        lab.run("INSERT INTO t VALUES (2, 'b'), (12, 'c')")
        assert read(reader, 2) == [("+I", 2, "b"), ("+I", 12, "c")]
    lab.run("CREATE PUBLICATION parts FOR TABLE t")
    with (
        pytest.raises(ReplicationNotReadyError, match="publish_via_partition_root"),
        lab.opened(debezium__publication__name="parts"),
    ):
        pass


def test_a_server_without_room_for_a_slot_is_told(lab: ChangesLab):
    for number in range(SLOTS):
        lab.run(f"SELECT pg_create_physical_replication_slot('full{number}')")
    with pytest.raises(ReplicationNotReadyError, match="max_replication_slots"), lab.opened():
        pass


def test_a_slot_of_another_plugin_or_database_is_refused(lab: ChangesLab):
    lab.run(f"SELECT pg_create_logical_replication_slot('{lab.slot}', 'test_decoding')")
    with pytest.raises(ReplicationNotReadyError, match=r"slot\.name"), lab.opened():
        pass
    lab.server.drop_slot(lab.slot)
    lab.server.execute(f"SELECT pg_create_logical_replication_slot('{lab.slot}', 'pgoutput')")
    with pytest.raises(ReplicationNotReadyError, match=r"slot\.name"), lab.opened():
        pass


def test_a_slot_that_the_server_gave_up_is_told(lab: ChangesLab):
    with lab.opened() as reader:
        read(reader, 1)
        place = reader.positions()
    lab.run("CREATE TABLE other (v text)")
    for _ in range(6):
        lab.run("INSERT INTO other SELECT repeat(md5(n::text), 90) FROM generate_series(1, 6000) n")
        lab.run("SELECT pg_switch_wal()")
        lab.run("CHECKPOINT")
    with pytest.raises(ChangesLostError, match="max_slot_wal_keep_size"), lab.opened(place):
        pass


def test_a_slot_from_before_can_be_taken_over(lab: ChangesLab):
    """With what it holds: the snapshot shows that, and the publication is younger."""
    lab.run(f"SELECT pg_create_logical_replication_slot('{lab.slot}', 'pgoutput')")
    lab.run("INSERT INTO t VALUES (2, 'b'); ")
    lab.run("UPDATE t SET v = 'c'")
    with lab.opened() as reader:
        assert sorted(read(reader, 2)) == [("+I", 1, "c"), ("+I", 2, "c")]
        lab.run("INSERT INTO t VALUES (3, 'd')")
        assert read(reader, 1) == [("+I", 3, "d")]


def test_a_transaction_that_stays_open_is_told(lab: ChangesLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "SETTLE_TIMEOUT_S", 0.3)
    open_ = lab.server.connect(lab.database, autocommit=False)
    with open_.cursor() as cursor:
        cursor.execute("INSERT INTO t VALUES (2, 'b')")
        with monkeypatch.context() as patched:
            patched.setattr(slots, "CREATE_TIMEOUT_MS", 300)
            with pytest.raises(OpenTransactionError, match="slot slot"), lab.opened():
                pass
        open_.rollback()
        with lab.opened():
            pass
        cursor.execute("INSERT INTO t VALUES (3, 'c')")
        with pytest.raises(OpenTransactionError, match="snapshot"), lab.opened():
            pass
    open_.commit()
    open_.close()
    with lab.opened() as reader:
        assert sorted(until_caught_up(reader)) == [("+I", 1, "a"), ("+I", 3, "c")]


def test_a_server_that_does_not_log_enough_is_told(tmp_path: object):
    with PostgresServer(options={"wal_level": "replica"}) as server:
        lab = ChangesLab(server, "postgres", "slot")
        lab.run("CREATE TABLE t (id int PRIMARY KEY, v text)")
        with pytest.raises(ReplicationNotReadyError, match="SET wal_level = logical"), lab.opened():
            pass


def test_a_database_that_is_lost_on_the_way_is_told_and_can_be_gone_back_to():
    with PostgresServer() as server:
        lab = ChangesLab(server, "postgres", "slot")
        lab.run("CREATE TABLE t (id int PRIMARY KEY, v text)")
        with lab.opened() as reader:
            assert until_caught_up(reader) == []
            place = reader.positions()
            lab.run("INSERT INTO t VALUES (1, 'a')")
            server.stop("immediate")
            with pytest.raises(MatihError) as caught:
                read(reader, 2)
            assert caught.value.recovery.value == "retry"
            reader.acknowledge(place)  # is told to the log, and not to the caller
        server.start()
        with lab.opened(place) as reader:
            assert read(reader, 1) == [("+I", 1, "a")]
        with PostgresServer() as other:
            elsewhere = ChangesLab(other, "postgres", "slot")
            elsewhere.run("CREATE TABLE t (id int PRIMARY KEY, v text)")
            with (
                pytest.raises(ChangesLostError, match="another database cluster"),
                elsewhere.opened(place),
            ):
                pass


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"decoding__plugin__name": "decoderbufs"}, SqlNotSupportedError, "pgoutput"),
        ({"slot__name": "Slot-1"}, SqlInvalidError, "lower case"),
        ({"scan__startup__mode": "earliest"}, SqlInvalidError, "committed-offset"),
        ({"debezium__snapshot__mode": "never"}, SqlInvalidError, "no option"),
        ({"slot__max_lag": "a lot"}, SqlInvalidError, "10 gb"),
        ({"port": "many"}, SqlInvalidError, "port"),
        ({"username": "nobody_here"}, AuthenticationFailedError, "nobody_here"),
        ({"port": str(free_port())}, ConnectionRefusedByHostError, "refused"),
        ({"table_name": "missing"}, UnknownUnitError, "public.missing"),
    ],
)
def test_options_that_are_wrong_are_told(
    lab: ChangesLab, options: dict[str, str], error: type[MatihError], told: str
):
    with pytest.raises(error, match=told), lab.opened(**options):
        pass


def whole(reader: PostgresChangesReader) -> list[tuple[object, ...]]:
    """All rows of a snapshot that is not followed."""
    found = []
    while not reader.finished():
        found += rows_of(reader)
    return found


def test_ranges_of_a_snapshot_have_each_row_once(lab: ChangesLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "RANGE_PAGES", 1)
    lab.run("INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(2, 20000) n")
    lab.run("DELETE FROM t WHERE id % 7 = 0; UPDATE t SET v = 'y' WHERE id % 5 = 0")
    five = {"scan__startup__mode": "snapshot", "scan__snapshot__parallelism": "5"}
    with lab.opened(**five) as reader:
        connections = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'matih-ray' AND "
            "xact_start IS NOT NULL AND datname = current_database()"
        )
        assert lab.run(connections) == [(5,)]
        found = whole(reader)
    assert sorted(row[1:] for row in found) == sorted(lab.run("SELECT id, v FROM t"))
    with lab.opened(**five) as reader:
        assert rows_of(reader)  # and is left before its end
    left = {thread.name for thread in threading.enumerate()}
    assert not left & {"snapshot", "postgres-copy"}


def test_a_range_that_fails_fails_the_snapshot(lab: ChangesLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "RANGE_PAGES", 1)
    lab.columns = "id INT, v DECIMAL(3, 1)"
    lab.run("ALTER TABLE t ALTER v TYPE numeric USING NULL")
    lab.run(
        "INSERT INTO t SELECT n, CASE n WHEN 9000 THEN 1.23 END FROM generate_series(2, 9999) n"
    )
    snapshot_alone = lab.opened(scan__startup__mode="snapshot")
    with snapshot_alone as reader, pytest.raises(UnrepresentableValueError, match="'v'"):
        whole(reader)


@pytest.mark.parametrize("said", ["0", "33", "two", "-1"])
def test_the_number_of_ranges_has_bounds(lab: ChangesLab, said: str):
    with pytest.raises(SqlInvalidError, match="from 1 to 32"):
        lab.reader(scan__snapshot__parallelism=said)
