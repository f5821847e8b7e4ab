"""Changes of PostgreSQL tables: nothing lost, nothing twice, every value as it is."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from matih_ray.errors import (
    ChangesLostError,
    SlotLagError,
    SourceChangedError,
    SourceUnavailableError,
    UnrepresentableValueError,
)
from matih_ray.sources.postgres.changes import replication, snapshot
from matih_ray.streaming.connectors import postgres_cdc
from matih_ray.testing.devstack.postgres import PostgresServer
from tests.integration.changes_lab import ChangesLab, read, rows_of, until_caught_up

# Larger than what PostgreSQL keeps inside a row, and of a kind that it cannot compress away.
LARGE = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) n)"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(options={"max_replication_slots": "60", "max_wal_senders": "60"}) as server:
        yield server


@pytest.fixture
def lab(server: PostgresServer, request: pytest.FixtureRequest) -> ChangesLab:
    number = abs(hash(request.node.name)) % 10**9
    lab = ChangesLab(server, f"db{number}", f"slot{number}")
    server.create_database(lab.database)
    lab.run("CREATE TABLE t (id int PRIMARY KEY, v text)")
    return lab


def test_rows_that_are_there_come_first_and_then_what_happens_to_them(lab: ChangesLab):
    lab.run("ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 'a'), (2, NULL)")
    with lab.opened() as reader:
        assert read(reader, 2) == [("+I", 1, "a"), ("+I", 2, None)]
        lab.run("UPDATE t SET v = 'b' WHERE id = 1")
        lab.run("DELETE FROM t WHERE id = 2")
        lab.run("INSERT INTO t VALUES (3, E'tab\\there\\nand \\\\N')")
        assert read(reader, 4) == [
            ("-U", 1, "a"),
            ("+U", 1, "b"),
            ("-D", 2, None),
            ("+I", 3, "tab\there\nand \\N"),
        ]


def test_without_the_whole_old_row_there_is_its_key(lab: ChangesLab):
    lab.run("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    with lab.opened() as reader:
        read(reader, 2)
        lab.run("UPDATE t SET v = 'c' WHERE id = 1")
        lab.run("UPDATE t SET id = 9 WHERE id = 1")
        lab.run("DELETE FROM t WHERE id = 2")
        assert read(reader, 4) == [
            ("+U", 1, "c"),
            ("-D", 1, None),
            ("+U", 9, "c"),
            ("-D", 2, None),
        ]


def test_upsert_mode_leaves_out_what_a_row_was(lab: ChangesLab):
    lab.run("ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t VALUES (1, 'a')")
    with lab.opened(changelog_mode="upsert") as reader:
        read(reader, 1)
        lab.run("UPDATE t SET v = 'b'")
        assert read(reader, 1) == [("+U", 1, "b")]


def test_changes_can_be_read_as_rows_that_say_their_kind(lab: ChangesLab):
    lab.columns = (
        "kind STRING METADATA FROM 'row_kind' VIRTUAL, id INT, "
        "at TIMESTAMP_LTZ(3) METADATA FROM 'op_ts' VIRTUAL, "
        "`table` STRING METADATA FROM 'table_name' VIRTUAL"
    )
    lab.run("INSERT INTO t VALUES (1, 'a')")
    option = {"scan__read_changelog_as_append_only__enabled": "true"}
    with lab.opened(**option) as reader:
        ((kind, id_, row_kind, at, table),) = read(reader, 1)
        assert (kind, id_, row_kind, table) == ("+I", 1, "+I", "t")
        assert at.timestamp() == 0  # type: ignore[attr-defined]
        lab.run("DELETE FROM t")
        ((kind, id_, row_kind, at, table),) = read(reader, 1)
        ((now,),) = lab.run("SELECT now()")
        assert (kind, id_, row_kind) == ("+I", 1, "-D")
        assert 0 <= (now - at).total_seconds() < 60  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(3))
def test_rows_written_while_it_begins_come_once(
    lab: ChangesLab, seed: int, monkeypatch: pytest.MonkeyPatch
):
    """Writers whose transactions overlap each other, the slot's making and the snapshot."""
    monkeypatch.setattr(snapshot, "RANGE_PAGES", 1)  # several connections
    stop = threading.Event()
    written: list[list[int]] = [[] for _ in range(4)]

    def write(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        connection = lab.server.connect(lab.database, autocommit=False)
        with connection.cursor() as cursor:
            for step in range(100_000):
                if stop.is_set():
                    break
                ids = [number + 4 * (step * 10 + one) for one in range(chance.randint(1, 9))]
                for one in ids:
                    cursor.execute("INSERT INTO t VALUES (%s, 'x')", (one,))
                if chance.random() < 0.2:
                    connection.rollback()
                else:
                    connection.commit()
                    written[number] += ids
        connection.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    found, place = [], None
    with lab.opened() as reader:
        # at least to the end of the snapshot, which on a slow machine has more than this many rows
        while place is None or (not reader.caught_up() and len(found) < 3_000):
            found += [row[1] for row in rows_of(reader, 50)]
            if not reader.holds():
                place = reader.positions()
                reader.acknowledge(place)
                done = len(found)
    stop.set()
    for thread in threads:
        thread.join()
    assert place is not None
    with lab.opened(place) as reader:  # and goes on
        found = found[:done] + [row[1] for row in until_caught_up(reader)]
    assert sorted(found) == sorted(one for ids in written for one in ids)


def test_a_transaction_is_kept_whole(lab: ChangesLab):
    with lab.opened() as reader:
        assert until_caught_up(reader) == []
        before = reader.positions()
        lab.run("INSERT INTO t SELECT n, 'x' FROM generate_series(1, 1000) n")
        found = []
        while len(found) < 1000:
            found += rows_of(reader, 100)
            if 0 < len(found) < 1000:
                assert reader.holds()
                assert reader.positions() == before
        assert until_caught_up(reader) == []
        assert not reader.holds()
        assert reader.positions() != before
    with lab.opened(before) as reader:  # whoever did not see its end sees all of it again
        assert [row[1] for row in read(reader, 1000)] == list(range(1, 1001))


def test_a_reader_that_is_behind_stops_between_transactions(lab: ChangesLab):
    with lab.opened() as reader:
        assert until_caught_up(reader) == []
        for first in range(0, 3000, 30):
            lab.run(f"INSERT INTO t SELECT n, 'x' FROM generate_series({first}, {first + 29}) n")
        found = []
        while len(found) < 3000:
            found += rows_of(reader, 200)
            assert not reader.holds()
        assert [row[1] for row in found] == list(range(3000))


def test_a_snapshot_that_was_not_finished_begins_again(lab: ChangesLab):
    lab.run("INSERT INTO t SELECT n, repeat('x', 100) FROM generate_series(1, 200000) n")
    with lab.opened() as reader:
        first = reader.positions()
        assert rows_of(reader)
        assert reader.holds()
        lab.run("DELETE FROM t WHERE id > 10; UPDATE t SET v = 'y'")
    with lab.opened(first) as reader:
        found = until_caught_up(reader)
    assert sorted(found) == [("+I", n, "y") for n in range(1, 11)]


def test_a_snapshot_alone_ends(lab: ChangesLab):
    lab.run("INSERT INTO t VALUES (1, 'a')")
    with lab.opened(scan__startup__mode="snapshot") as reader:
        assert rows_of(reader) == [("+I", 1, "a")]
        assert rows_of(reader) == []
        assert reader.finished() == reader.partitions()
        end = reader.positions()
    with lab.opened(end, scan__startup__mode="snapshot") as reader:
        assert reader.finished() == reader.partitions()
    assert lab.run("SELECT count(*) FROM pg_publication") == [(0,)]


def test_a_start_without_a_snapshot_sees_only_what_is_new(lab: ChangesLab):
    lab.run("INSERT INTO t VALUES (1, 'a')")
    with lab.opened(scan__startup__mode="latest-offset") as reader:
        lab.run("INSERT INTO t VALUES (2, 'b')")
        assert read(reader, 1) == [("+I", 2, "b")]
    # nothing was acknowledged, so the slot still has it
    with lab.opened(scan__startup__mode="committed-offset") as reader:
        assert read(reader, 1) == [("+I", 2, "b")]
    with lab.opened(scan__startup__mode="latest-offset") as reader:
        assert until_caught_up(reader) == []


TYPES = {
    "b BOOLEAN": "boolean",
    "s SMALLINT": "smallint",
    "i INT": "integer",
    "w BIGINT": "integer",
    "l BIGINT": "bigint",
    "r FLOAT": "real",
    "f DOUBLE": "double precision",
    "n DECIMAL(38, 9)": "numeric(38,9)",
    "m DECIMAL(20, 2)": "numeric",
    "t STRING": "text",
    "c STRING": "char(5)",
    "u STRING": "uuid",
    "j STRING": "jsonb",
    "a STRING": "text[]",
    "x STRING": "bytea",
    "d DATE": "date",
    "p TIMESTAMP(6)": "timestamp",
    "q TIMESTAMP(3)": "timestamp",
    "z TIMESTAMP_LTZ(6)": "timestamptz",
    "y TIMESTAMP(6)": "timestamptz",
    "o STRING": "mood",
    "e INT": "small",
}
VALUES = [
    ["NULL"] * len(TYPES),
    [
        "true", "-32768", "-2147483648", "2147483647", "-9223372036854775808",
        "'1.17549435e-38'", "'NaN'", "12345678901234567890123456789.123456789", "0.1",
        "''", "'ab'", "'6ec0bd7f-11c0-43da-975e-2a8ad9ebae0b'", "'{\"k\": \"\\\\t\\n\"}'",
        "ARRAY['a,b', NULL, E'\\\\\\t']", "'\\x00ff0a09'", "'infinity'", "'-infinity'",
        "'1969-12-31 23:59:59.999999'", "'2026-01-01 00:00:00.000001+05'",
        "'2026-07-01 12:00:00+02'", "'sad'", "7",
    ],
    [
        "false", "32767", "2147483647", "-1", "9223372036854775807", "'-Infinity'", "0.1",
        "-0.000000001", "-123456789012345678.99", "E'tab\\t newline\\n return\\r slash\\\\ \\\\N'",
        "'žluť'", "'6EC0BD7F-11C0-43DA-975E-2A8AD9EBAE0B'", "'[]'", "'{}'", "''",
        "'4713-01-01 BC'", "'0001-01-01 00:00:00.5 BC'", "'2026-01-01 00:00:00.123999'",
        "'infinity'", "'1900-01-01 00:00:00.25+00'", "'happy'", "-7",
    ],
]  # fmt: skip


def test_every_value_comes_by_the_stream_as_it_comes_by_the_snapshot(lab: ChangesLab):
    names = [one.split()[0] for one in TYPES]
    native = ", ".join(f"{name} {kind}" for name, kind in zip(names, TYPES.values(), strict=True))
    rows = ", ".join(f"({number}, {', '.join(row)})" for number, row in enumerate(VALUES))
    lab.run(
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN small AS int CHECK (VALUE < 9);"
        f"DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, {native}); INSERT INTO t VALUES {rows}"
    )
    lab.columns = "id INT, " + ", ".join(TYPES)
    with lab.opened() as reader:
        before = read(reader, len(VALUES))
        lab.run("TRUNCATE t")
    with lab.opened() as reader:
        assert until_caught_up(reader) == []
        lab.run(f"INSERT INTO t VALUES {rows}")
        after = read(reader, len(VALUES))
    assert repr(before) == repr(after)  # NaN is not equal to itself
    told = dict(zip(["kind", "id", *names], after[1], strict=True))
    assert str(told["n"]) == "12345678901234567890123456789.123456789"
    assert told["x"] == "\\x00ff0a09"
    assert (told["d"], told["p"]) == (2**31 - 1, -(2**63 - 1))
    assert str(told["q"]) == "1969-12-31 23:59:59.999000"


def test_a_large_value_that_an_update_left_alone_is_not_lost(lab: ChangesLab):
    lab.columns = "id INT, v STRING, w INT"
    lab.run("ALTER TABLE t ADD w int")
    lab.run(f"ALTER TABLE t REPLICA IDENTITY FULL; INSERT INTO t SELECT 1, {LARGE}, 0")
    with lab.opened() as reader:
        ((_, _, large, _),) = read(reader, 1)
        assert len(str(large)) == 9_600
        lab.run("UPDATE t SET w = 1")
        assert read(reader, 2) == [("-U", 1, large, 0), ("+U", 1, large, 1)]
        lab.run("ALTER TABLE t REPLICA IDENTITY DEFAULT; UPDATE t SET w = 2")
        with pytest.raises(UnrepresentableValueError, match="REPLICA IDENTITY FULL") as caught:
            read(reader, 1)
    assert caught.value.context["column"] == "v"
    lab.columns = "id INT, w INT"  # who does not ask for the value does not miss it
    with lab.opened() as reader:
        read(reader, 1)
        lab.run("UPDATE t SET w = 3")
        assert read(reader, 1) == [("+U", 1, 3)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("ALTER TABLE t DROP COLUMN v", "'v'"),
        ("ALTER TABLE t RENAME COLUMN v TO w", "'v'"),
        ("ALTER TABLE t ALTER COLUMN id TYPE bigint", "'id'"),
        ("ALTER TABLE t RENAME TO u", "renamed"),
        ("TRUNCATE t", "truncated"),
    ],
)
def test_a_change_of_the_table_is_told(lab: ChangesLab, change: str, told: str):
    lab.run("INSERT INTO t VALUES (1, 'a')")
    with lab.opened() as reader:
        read(reader, 1)
        lab.run("INSERT INTO t VALUES (2, 'b')")
        lab.run(change)
        table = "u" if "TO u" in change else "t"
        lab.run(f"INSERT INTO {table} (id) VALUES (3)")
        with pytest.raises(SourceChangedError, match=told):
            read(reader, 2)


def test_a_change_that_the_declaration_allows_goes_on(lab: ChangesLab):
    lab.columns = "id BIGINT, v STRING"
    with lab.opened() as reader:
        assert until_caught_up(reader) == []
        lab.run("INSERT INTO t VALUES (1, 'a')")
        lab.run("ALTER TABLE t ADD w int DEFAULT 5")
        lab.run("ALTER TABLE t ALTER COLUMN id TYPE bigint, ALTER COLUMN v TYPE varchar(10)")
        lab.run("INSERT INTO t VALUES (5000000000, 'b')")
        assert read(reader, 2) == [("+I", 1, "a"), ("+I", 5_000_000_000, "b")]


def test_a_table_that_was_made_again_is_told(lab: ChangesLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(postgres_cdc, "LOOK_S", 0.0)
    with lab.opened() as reader:
        assert until_caught_up(reader) == []
        lab.run("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v text)")
        lab.run("INSERT INTO t VALUES (1, 'a')")
        with pytest.raises(SourceChangedError, match="made again"):
            read(reader, 1)


def test_changes_that_are_not_kept_are_missed_aloud(lab: ChangesLab):
    with lab.opened() as reader:
        assert until_caught_up(reader) == []
        old = reader.positions()
        lab.run("INSERT INTO t VALUES (1, 'a')")
        read(reader, 1)
        reader.acknowledge(reader.positions())
    with pytest.raises(ChangesLostError, match="confirmed up to"), lab.opened(old):
        pass
    lab.server.drop_slot(lab.slot)
    with pytest.raises(ChangesLostError, match="no slot"), lab.opened(old):
        pass


def test_a_slot_has_one_reader(lab: ChangesLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replication, "FREE_WITHIN_S", 0.5)
    with (
        lab.opened(),
        pytest.raises(SourceUnavailableError, match="another reader"),
        lab.opened(),
    ):
        pass


def test_an_idle_slot_keeps_nothing(lab: ChangesLab, monkeypatch: pytest.MonkeyPatch):
    """100 MB of log by other tables, none by ours."""
    monkeypatch.setattr(postgres_cdc, "LOOK_S", 0.0)
    lab.run("CREATE TABLE other (v text)")
    with lab.opened() as reader:
        assert until_caught_up(reader) == []
        for _ in range(4):
            lab.run(
                "INSERT INTO other SELECT repeat(md5(n::text), 30) FROM generate_series(1, 26000) n"
            )
        assert lab.lag() > 100 << 20
        for _ in range(3):
            lab.run("CHECKPOINT")  # writes what a slot's restart is reckoned from
            assert until_caught_up(reader) == []
            reader.acknowledge(reader.positions())
        assert until_caught_up(reader) == []
        assert lab.lag() < 1 << 20
        rows_of(reader)
        assert (reader.lag_bytes() or 0) < 1 << 20


def test_a_slot_that_keeps_too_much_is_told(lab: ChangesLab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(postgres_cdc, "LOOK_S", 0.0)
    lab.run("CREATE TABLE other (v text)")
    with lab.opened(slot__max_lag="1 mb") as reader:
        assert until_caught_up(reader) == []
        lab.run("INSERT INTO other SELECT repeat(md5(n::text), 30) FROM generate_series(1, 2600) n")
        with pytest.raises(SlotLagError, match="pg_drop_replication_slot"):
            read(reader, 1)
