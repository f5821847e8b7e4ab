"""Flink CDC's options of a `postgres-cdc` table.

Source: "Postgres CDC Connector" of Flink CDC's documentation. Options that tune what is done
otherwise here (snapshots in chunks, heartbeats, pools) are taken and have no effect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from matih_ray.errors import SqlInvalidError, SqlNotSupportedError, ValidationError
from matih_ray.sources.postgres.config import PostgresConfig
from matih_ray.streaming.connectors.options import duration_ms, flag, option, table_name
from matih_ray.streaming.sql.script import CreateTable

INITIAL, LATEST, COMMITTED, SNAPSHOT = STARTUPS = (
    "initial",
    "latest-offset",
    "committed-offset",
    "snapshot",
)
_MODES = ("all", "upsert")
_STARTUP = "scan.startup.mode"
_PARALLELISM = "scan.snapshot.parallelism"
# Connections that read the rows that are there: one for each of few cores.
DEFAULT_PARALLELISM, MAX_PARALLELISM = 2, 32
_APPEND_ONLY = "scan.read-changelog-as-append-only.enabled"
_PUBLICATION = "debezium.publication.name"
_SSL_MODE = "debezium.database.sslmode"
_SSL_ROOT = "debezium.database.sslrootcert"
_KNOWN = frozenset(
    {
        "connector", "hostname", "port", "username", "password", "database-name", "schema-name",
        "table-name", "slot.name", "decoding.plugin.name", "changelog-mode", "connect.timeout",
        "slot.max-lag", "scan.watermark.idle-timeout", _STARTUP, _APPEND_ONLY, _PUBLICATION,
        _SSL_MODE, _SSL_ROOT, _PARALLELISM,
    }
)  # fmt: skip
_NO_EFFECT = frozenset(
    {
        "heartbeat.interval.ms", "connect.max-retries", "connection.pool.size",
        "chunk-meta.group.size", "chunk-key.even-distribution.factor.lower-bound",
        "chunk-key.even-distribution.factor.upper-bound", "scan.snapshot.fetch.size",
        "scan.incremental.snapshot.enabled", "scan.incremental.snapshot.chunk.size",
        "scan.incremental.snapshot.chunk.key-column", "scan.incremental.close-idle-reader.enabled",
        "scan.incremental.snapshot.backfill.skip", "scan.lsn-commit.checkpoints-num-delay",
        "scan.incremental.snapshot.unbounded-chunk-first.enabled",
        "scan.include-partitioned-tables.enabled",
    }
)  # fmt: skip
_SLOT = re.compile(r"[a-z0-9_]{1,63}")
_SIZE = re.compile(r"(\d+)\s*(b|bytes|kb|k|mb|m|gb|g|tb|t)?")
_SIZES = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}


@dataclass(frozen=True)
class ChangesTable:
    """One table whose changes are read. `max_lag_bytes` is how much of its log the server may keep
    for the slot, None for any amount."""

    name: str
    config: PostgresConfig
    password: str | None = field(repr=False)
    schema: str = "public"
    table: str = ""
    slot: str = ""
    publication: str = ""
    startup: str = INITIAL
    upsert: bool = False
    append_only: bool = False
    max_lag_bytes: int | None = None
    snapshot_parallelism: int = 1


def changes_table(table: CreateTable) -> ChangesTable:
    """Read the options of a table.

    Raises:
        SqlInvalidError: An option is wrong or unknown.
        SqlNotSupportedError: It asks for what is not there.
    """
    values, name = table.options.values, table_name(table)
    for key in values:
        if key not in _KNOWN | _NO_EFFECT:
            raise SqlInvalidError(f"table {name}: connector postgres-cdc has no option {key!r}",
                                  option=key)  # fmt: skip
    plugin = option(table, "decoding.plugin.name", "pgoutput")
    if plugin != "pgoutput":
        raise SqlNotSupportedError(
            f"table {name}: decoding plugin {plugin!r} is not supported; use 'pgoutput', which "
            "every PostgreSQL has",
            clause="decoding.plugin.name",
        )
    startup = _one_of(table, _STARTUP, STARTUPS)
    slot = option(table, "slot.name", "" if startup == SNAPSHOT else None)
    if slot and not _SLOT.fullmatch(slot):
        raise SqlInvalidError("option 'slot.name' has lower case letters, digits and _ only",
                              option="slot.name")  # fmt: skip
    return ChangesTable(
        name=name,
        config=_config(table),
        password=values.get("password"),
        schema=option(table, "schema-name", "public"),
        table=option(table, "table-name"),
        slot=slot,
        publication=option(table, _PUBLICATION, slot),
        startup=startup,
        upsert=_one_of(table, "changelog-mode", _MODES) == "upsert",
        append_only=flag(table, _APPEND_ONLY),
        max_lag_bytes=_size(table, "slot.max-lag"),
        snapshot_parallelism=_parallelism(table),
    )


def is_bounded_snapshot(table: CreateTable) -> bool:
    """Whether the table is read once and not followed."""
    return table.options.values.get(_STARTUP, INITIAL) == SNAPSHOT


def _config(table: CreateTable) -> PostgresConfig:
    config = {
        "host": option(table, "hostname"),
        "port": option(table, "port", "5432"),
        "database": option(table, "database-name"),
        "user": option(table, "username"),
        "sslMode": option(table, _SSL_MODE, "prefer"),
        "sslRootCert": table.options.values.get(_SSL_ROOT),
        "connectTimeoutS": max(1, duration_ms(table, "connect.timeout", 30_000) // 1000),
    }
    try:
        return PostgresConfig.from_json(config)
    except ValidationError as error:
        raise SqlInvalidError(f"table {table_name(table)}: {error.message}") from None


def _one_of(table: CreateTable, key: str, allowed: tuple[str, ...]) -> str:
    found = option(table, key, allowed[0])
    if found not in allowed:
        raise SqlInvalidError(f"option {key!r} is one of {', '.join(allowed)}", option=key)
    return found


def _parallelism(table: CreateTable) -> int:
    text = option(table, _PARALLELISM, str(DEFAULT_PARALLELISM))
    if not (text.isdecimal() and 1 <= int(text) <= MAX_PARALLELISM):
        raise SqlInvalidError(
            f"option {_PARALLELISM!r} is a number from 1 to {MAX_PARALLELISM}", option=_PARALLELISM
        )
    return int(text)


def _size(table: CreateTable, key: str) -> int | None:
    text = table.options.values.get(key)
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise SqlInvalidError(f"option {key!r} is a size such as 10 gb", option=key)
    return int(found[1]) << _SIZES[(found[2] or "b")[0]]
