"""Tables whose changes are read, and readers of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pyarrow as pa

from matih_ray.model.value import JsonValue
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.streaming.connectors.opening import open_reader
from matih_ray.streaming.connectors.postgres_cdc import PostgresChangesReader
from matih_ray.streaming.connectors.reader import KIND_NAMES, MetadataColumn
from matih_ray.streaming.sql.script import CreateTable, parse_script
from matih_ray.testing.devstack.postgres import PostgresServer

GIVE_UP_AFTER_S = 60
# Python's rows, with what happened to each.
Row = tuple[object, ...]


@dataclass
class ChangesLab:
    """One database of a server, with a table `public.t`."""

    server: PostgresServer
    database: str
    slot: str
    columns: str = "id INT, v STRING"
    options: dict[str, str] = field(default_factory=dict)

    def run(self, statement: str) -> list[Row]:
        return self.server.execute(statement, self.database)

    def ddl(self, **options: str) -> str:
        """The table in SQL; options are written with `__` for dots and `_` for hyphens."""
        told = {
            "connector": "postgres-cdc",
            "hostname": self.server.host,
            "port": str(self.server.port),
            "username": "postgres",
            "database-name": self.database,
            "table-name": "t",
            "slot.name": self.slot,
            **self.options,
            **{key.replace("__", ".").replace("_", "-"): text for key, text in options.items()},
        }
        shown = ", ".join(f"'{key}' = '{text}'" for key, text in told.items())
        return f"CREATE TABLE t ({self.columns}) WITH ({shown})"

    def reader(self, **options: str) -> PostgresChangesReader:
        (table,) = parse_script(self.ddl(**options), {})
        assert isinstance(table, CreateTable)
        fields = {one.name: one.type for one in table.columns if one.type and not one.metadata}
        metadata = {
            one.name: MetadataColumn(one.metadata, one.type)
            for one in table.columns
            if one.metadata and one.type
        }
        found = open_reader(table, fields, metadata, HostPolicy())
        assert isinstance(found, PostgresChangesReader)
        return found

    @contextmanager
    def opened(
        self, positions: Mapping[str, JsonValue] | None = None, **options: str
    ) -> Iterator[PostgresChangesReader]:
        with closing(self.reader(**options)) as reader:
            reader.open(positions)
            yield reader

    def lag(self) -> int:
        """Bytes of the log that the server keeps for the slot."""
        ((lag,),) = self.run(
            "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) FROM pg_replication_slots "
            f"WHERE slot_name = '{self.slot}'"
        )
        return int(str(lag))


def rows_of(reader: PostgresChangesReader, max_rows: int = 10_000) -> list[Row]:
    """What one poll gives, each row behind its kind."""
    found: list[Row] = []
    for polled in reader.poll(max_rows, 0.2):
        count = polled.batch.num_rows
        kinds = [0] * count if polled.kinds is None else polled.kinds.to_pylist()
        values = [_python(column) for column in polled.batch.columns]
        rows = zip(*values, strict=True) if values else [()] * count
        found += [(KIND_NAMES[kind], *row) for kind, row in zip(kinds, rows, strict=True)]
    return found


def _python(column: pa.Array) -> list[object]:
    """Python's values; numbers where Python has no such date."""
    try:
        return column.to_pylist()
    except (OverflowError, ValueError):
        wide = pa.types.is_timestamp(column.type)
        return column.cast(pa.int64() if wide else pa.int32()).to_pylist()


def read(reader: PostgresChangesReader, count: int, max_rows: int = 10_000) -> list[Row]:
    """So many rows, and a look whether there are more."""
    found: list[Row] = []
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} rows came"
        found += rows_of(reader, max_rows)
    return found + rows_of(reader, max_rows)


def until_caught_up(reader: PostgresChangesReader) -> list[Row]:
    """All that there is now."""
    found: list[Row] = []
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    while True:
        assert time.monotonic() < deadline, "there is no end of it"
        more = rows_of(reader)
        found += more
        if not more and reader.caught_up() and not reader.holds():
            return found
