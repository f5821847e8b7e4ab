"""Which connector reads a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from matih_ray.errors import MissingExtraError, SqlInvalidError, SqlNotSupportedError
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.streaming.connectors.bounded import BoundedReader, SharedFilesReader
from matih_ray.streaming.connectors.metadata import check_metadata
from matih_ray.streaming.connectors.options import option, table_name
from matih_ray.streaming.connectors.reader import MetadataColumn, StreamReader
from matih_ray.streaming.connectors.shares import WHOLE, Share
from matih_ray.streaming.connectors.sources import open_source
from matih_ray.streaming.sql.plan import Scan
from matih_ray.streaming.sql.script import CreateTable
from matih_ray.streaming.sql.types import FlinkType

# What happens to rows that are late or cannot be read: `side-table` keeps them where a job has one,
# `drop` is Flink's way.
REJECTED = "scan.rejected-rows"


def keeps_rejects(table: CreateTable) -> bool:
    """Whether rows of a table that are left out go to the job's side table.

    Raises:
        SqlInvalidError: The option has another value.
    """
    said = option(table, REJECTED, "side-table")
    if said not in ("side-table", "drop"):
        raise SqlInvalidError(f"option {REJECTED!r} is side-table or drop", option=REJECTED)
    return said == "side-table"


def reader_of(
    scan: Scan, policy: HostPolicy, *, share: Share = WHOLE, keep_bad: bool = False
) -> StreamReader:
    """The reader of a share of a scan's table, not opened yet. With `keep_bad` a row that cannot be
    read is told of, whatever the table's options say.

    Raises:
        SqlInvalidError: An option is wrong.
        SqlNotSupportedError: The connector, its format or a metadata column is not there.
        MissingExtraError: The connector's driver is not installed.
    """
    metadata = {
        name: MetadataColumn(key, scan.physical[name]) for name, key in scan.metadata.items()
    }
    fields = {name: kind for name, kind in scan.physical.items() if name not in metadata}
    return open_reader(scan.table, fields, metadata, policy, share=share, keep_bad=keep_bad)


def open_reader(
    table: CreateTable,
    fields: Mapping[str, FlinkType],
    metadata: Mapping[str, MetadataColumn],
    policy: HostPolicy,
    *,
    share: Share = WHOLE,
    keep_bad: bool = False,
) -> StreamReader:
    """A reader of these columns of a table; see `reader_of`."""
    values = {key: text for key, text in table.options.values.items() if key != REJECTED}
    table = replace(table, options=replace(table.options, values=values))
    if option(table, "connector") == "kafka":
        return _kafka(table, fields, metadata, policy, share, keep_bad=keep_bad)
    if option(table, "connector") == "postgres-cdc":
        return _postgres_changes(table, fields, metadata, policy, share)
    if metadata:
        raise SqlNotSupportedError(
            f"table {table_name(table)}: this connector has no metadata columns", clause="METADATA"
        )
    if share.is_whole:
        return BoundedReader(lambda: open_source(table, fields, keep_bad=keep_bad))
    return SharedFilesReader(table, fields, share, keep_bad=keep_bad)


def _kafka(
    table: CreateTable,
    fields: Mapping[str, FlinkType],
    metadata: Mapping[str, MetadataColumn],
    policy: HostPolicy,
    share: Share,
    *,
    keep_bad: bool,
) -> StreamReader:
    # not at the top: its driver is an extra
    try:
        from matih_ray.streaming.connectors.kafka import KafkaReader
        from matih_ray.streaming.connectors.kafka_metadata import KEYS
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"connector 'kafka' needs the package {error.name}; install matih-ray[kafka]",
            extra="kafka",
        ) from None
    from matih_ray.streaming.connectors.kafka_options import kafka_table

    check_metadata(metadata, {key: kind for key, (kind, _) in KEYS.items()}, "Kafka")
    described = kafka_table(table)
    if keep_bad:
        described = replace(described, format=replace(described.format, keep_bad=True))
    return KafkaReader(described, fields, metadata, policy, share)


def _postgres_changes(
    table: CreateTable,
    fields: Mapping[str, FlinkType],
    metadata: Mapping[str, MetadataColumn],
    policy: HostPolicy,
    share: Share,
) -> StreamReader:
    # not at the top: its driver is an extra
    try:
        from matih_ray.streaming.connectors.postgres_cdc import PostgresChangesReader
        from matih_ray.streaming.connectors.postgres_cdc_metadata import KEYS
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"connector 'postgres-cdc' needs the package {error.name}; install matih-ray[postgres]",
            extra="postgres",
        ) from None
    from matih_ray.streaming.connectors.postgres_cdc_options import changes_table

    check_metadata(metadata, KEYS, "postgres-cdc")
    return PostgresChangesReader(changes_table(table), fields, metadata, policy, share)
