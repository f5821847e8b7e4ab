"""What the source `postgres-cdc` makes of a log, beside `pg_recvlogical`, which throws it away.

`make bench-cdc ROWS=300000 REPEAT=3`. Both read the same log through the same publication, from a
slot at its beginning to a fixed end, in turns: ours into Arrow batches of the declared columns, as
a job gets them, and PostgreSQL's own client into /dev/null. So what is measured is decoding by the
server, the way here, and, for ours alone, reading the messages.

    load     inserts, ten thousand to a transaction
    mixed    an insert, two updates and a delete to a transaction, with the whole old rows

    snapshot the rows of `load` once more, as a job first finds them, by one connection and by two;
             and psql's COPY of them to /dev/null

`server_cpu_s` is the server's, which decodes for both. Ours is warmed up by the first few rows;
opening the source is in its time, as connecting is in the other's.
"""

from __future__ import annotations

import os
import statistics
from contextlib import closing

import psutil

from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.postgres.changes.messages import lsn_of
from matih_ray.streaming.connectors.opening import open_reader
from matih_ray.streaming.connectors.reader import StreamReader
from matih_ray.streaming.sql.script import CreateTable, parse_script
from matih_ray.testing.devstack.postgres import PostgresServer, find_binaries
from tests.benchmarks.contenders import postmaster
from tests.benchmarks.machine import SERVER_OPTIONS, describe, last_line, number, say
from tests.benchmarks.measure import Meter, Usage, median

DATABASE = "postgres"
# What a turn of a job asks for.
POLL_ROWS = 128 * 1024
POLL_S = 0.25
WARM_UP_ROWS = 1000
ROWS_TO_A_LOAD = 10_000
TABLE = """
    CREATE TABLE {name} (
        id uuid PRIMARY KEY, entity_type text, entity_id text, tenant_id text, from_state text,
        to_state text, triggered_by text, trigger_reason text, metadata jsonb, created_at timestamp
    );
    ALTER TABLE {name} REPLICA IDENTITY FULL;
    CREATE PUBLICATION {name} FOR TABLE {name};
"""
COLUMNS = (
    "id STRING, entity_type STRING, entity_id STRING, tenant_id STRING, from_state STRING, "
    "to_state STRING, triggered_by STRING, trigger_reason STRING, metadata STRING, "
    "created_at TIMESTAMP(3)"
)
ROW = (
    "gen_random_uuid(), 'session_phase', 'entity-' || n, 'acme', 'new', 'done', NULL, "
    "'because', '{{\"duration_ms\": 12.50}}', now()"
)
LOAD = f"""
    DO $$ BEGIN FOR part IN 1..{{times}} LOOP
        INSERT INTO load SELECT {ROW} FROM generate_series(1, {{rows}}) n; COMMIT;
    END LOOP; END $$
"""
# Four messages about rows to a transaction, and seven rows: those before are rows too.
MIXED = f"""
    DO $$ DECLARE one uuid; BEGIN FOR n IN 1..{{times}} LOOP
        INSERT INTO mixed SELECT {ROW} RETURNING id INTO one;
        UPDATE mixed SET to_state = 'failed' WHERE id = one;
        UPDATE mixed SET to_state = 'done', triggered_by = 'somebody' WHERE id = one;
        DELETE FROM mixed WHERE id = one; COMMIT;
    END LOOP; END $$
"""
CHANGES_OF_MIXED, ROWS_OF_MIXED = 4, 6


class Lab:
    """A server with one log for each table, and slots that begin before it."""

    def __init__(self, server: PostgresServer, rows: int) -> None:
        self.server = server
        self.ends: dict[str, int] = {}
        self.rows = {
            "load": rows // ROWS_TO_A_LOAD * ROWS_TO_A_LOAD,
            "mixed": rows // CHANGES_OF_MIXED * ROWS_OF_MIXED,
        }
        for name in self.rows:
            self.run(TABLE.format(name=name))
        self._write("load", LOAD.format(times=rows // ROWS_TO_A_LOAD, rows=ROWS_TO_A_LOAD))
        self._write("mixed", MIXED.format(times=rows // CHANGES_OF_MIXED))

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """A statement, in autocommit."""
        return self.server.execute(statement, DATABASE)

    def _write(self, name: str, statement: str) -> None:
        self.run(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
        self.run(statement)
        ((end,),) = self.run("SELECT pg_current_wal_insert_lsn()::text")
        self.ends[name] = lsn_of(str(end))

    def slot(self, name: str, copy: str) -> str:
        """A slot of one reading, at the log's beginning."""
        slot = f"{name}_{copy}"
        self.run(f"SELECT pg_copy_logical_replication_slot('{name}', '{slot}')")
        return slot

    def reader(self, name: str, slot: str, **more: str) -> StreamReader:
        """Our reader of that slot."""
        options = {
            "connector": "postgres-cdc", "hostname": self.server.host,
            "port": str(self.server.port), "username": "postgres", "database-name": DATABASE,
            "table-name": name, "slot.name": slot, "debezium.publication.name": name,
            "scan.startup.mode": "committed-offset",
            **{key.replace("_", "."): text for key, text in more.items()},
        }  # fmt: skip
        shown = ", ".join(f"'{key}' = '{text}'" for key, text in options.items())
        (table,) = parse_script(f"CREATE TABLE {name} ({COLUMNS}) WITH ({shown})", {})
        assert isinstance(table, CreateTable)
        fields = {one.name: one.type for one in table.columns if one.type is not None}
        return open_reader(table, fields, {}, HostPolicy())


def warm_up(lab: Lab) -> None:
    """Read a few rows, so that what is loaded and compiled once is."""
    with closing(lab.reader("load", lab.slot("load", "warm"))) as reader:
        reader.open(None)
        read = 0
        while read < WARM_UP_ROWS:
            read += sum(one.batch.num_rows for one in reader.poll(WARM_UP_ROWS, POLL_S))


def by_us(lab: Lab, name: str, copy: str) -> Usage:
    """Read the log to its end."""
    slot, end, read = lab.slot(name, copy), lab.ends[name], 0
    reader = lab.reader(name, slot)
    with Meter(postmaster(lab.server), os.getpid()) as meter, closing(reader):
        reader.open(None)
        while _reached(reader) < end:
            read += sum(one.batch.num_rows for one in reader.poll(POLL_ROWS, POLL_S))
    if read != lab.rows[name]:
        raise RuntimeError(f"{name}: {read} of {lab.rows[name]} rows")
    return meter.usage


def _reached(reader: StreamReader) -> int:
    (place,) = reader.positions().values()
    assert isinstance(place, dict)
    return lsn_of(str(place["lsn"]))


def by_client(lab: Lab, name: str, copy: str) -> Usage:
    """Let PostgreSQL's own client read it."""
    end = lab.ends[name]
    command = [
        str(find_binaries() / "pg_recvlogical"), "--start", "-d", DATABASE, "-h", lab.server.host,
        "-p", str(lab.server.port), "-U", "postgres", "--slot", lab.slot(name, copy),
        "-o", "proto_version=1", "-o", f"publication_names={name}", "-f", "/dev/null",
        "--endpos", f"{end >> 32:X}/{end & 0xFFFFFFFF:X}",
    ]  # fmt: skip
    with Meter(postmaster(lab.server)) as meter:
        meter.run(command)
    return meter.usage


def of_snapshot(lab: Lab, connections: int) -> Usage:
    """Read the rows that are there."""
    parallelism = {"scan_snapshot_parallelism": str(connections)}
    reader, read = lab.reader("load", "", scan_startup_mode="snapshot", **parallelism), 0
    with Meter(postmaster(lab.server), os.getpid()) as meter, closing(reader):
        reader.open(None)
        while not reader.finished():
            read += sum(one.batch.num_rows for one in reader.poll(POLL_ROWS, POLL_S))
    if read != lab.rows["load"]:
        raise RuntimeError(f"{read} of {lab.rows['load']} rows")
    return meter.usage


def of_copy(lab: Lab) -> Usage:
    """Let psql copy them."""
    command = [
        str(find_binaries() / "psql"), "-h", lab.server.host, "-p", str(lab.server.port), "-U",
        "postgres", "-d", DATABASE, "-c", "\\copy load to '/dev/null'",
    ]  # fmt: skip
    with Meter(postmaster(lab.server)) as meter:
        meter.run(command)
    return meter.usage


def snapshots(lab: Lab, repeat: int) -> dict[str, object]:
    """One connection, two, and psql by turns."""
    usages: dict[str, list[Usage]] = {"one": [], "two": [], "psql": []}
    for _ in range(repeat):
        usages["one"].append(of_snapshot(lab, 1))
        usages["two"].append(of_snapshot(lab, 2))
        usages["psql"].append(of_copy(lab))
    found = {key: median(several).report(lab.rows["load"]) for key, several in usages.items()}
    for key, several in found.items():
        say(f"snapshot by {key}: {several}")
    return dict(found)


def main() -> None:
    """Measure both kinds of log."""
    rows, repeat = int(number("ROWS", 300_000)), int(number("REPEAT", 3))
    found: dict[str, object] = {}
    slots = {"max_replication_slots": "100", "synchronous_commit": "off"}
    with PostgresServer(options={**SERVER_OPTIONS, **slots}) as server:
        lab = Lab(server, rows)
        warm_up(lab)
        base_mb = round(psutil.Process().memory_info().rss / 1e6)
        for name in lab.rows:
            ours, theirs = [], []
            for turn in range(repeat):
                ours.append(by_us(lab, name, f"ours_{turn}"))
                theirs.append(by_client(lab, name, f"theirs_{turn}"))
            ratio = statistics.median(
                his.wall_s / mine.wall_s for mine, his in zip(ours, theirs, strict=True)
            )
            mine, his = median(ours).report(lab.rows[name]), median(theirs).report(lab.rows[name])
            say(f"{name}, {lab.rows[name]:,} rows: ours {mine}")
            say(f"{name}: pg_recvlogical {his}; ours drains {ratio:.2f} times as fast")
            found[name] = {"ours": mine, "pg_recvlogical": his, "ratio": round(ratio, 2)}
        found["snapshot"] = snapshots(lab, repeat)
        machine = describe(server)
    last_line({"benchmark": "cdc", "rows": rows, "base_mb": base_mb, **found, "machine": machine})


if __name__ == "__main__":
    main()
