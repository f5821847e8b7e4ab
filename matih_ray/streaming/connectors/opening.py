"""Which connector reads a table."""

from __future__ import annotations

from collections.abc import Mapping

from matih_ray.errors import MissingExtraError, SqlNotSupportedError
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.streaming.connectors.bounded import BoundedReader
from matih_ray.streaming.connectors.options import option, table_name
from matih_ray.streaming.connectors.reader import MetadataColumn, StreamReader
from matih_ray.streaming.connectors.sources import open_source
from matih_ray.streaming.sql.plan import Scan
from matih_ray.streaming.sql.script import CreateTable
from matih_ray.streaming.sql.types import FlinkType


def reader_of(scan: Scan, policy: HostPolicy) -> StreamReader:
    """The reader of a scan's table, not opened yet.

    Raises:
        SqlInvalidError: An option is wrong.
        SqlNotSupportedError: The connector, its format or a metadata column is not there.
        MissingExtraError: The connector's driver is not installed.
    """
    metadata = {
        name: MetadataColumn(key, scan.physical[name]) for name, key in scan.metadata.items()
    }
    fields = {name: kind for name, kind in scan.physical.items() if name not in metadata}
    return open_reader(scan.table, fields, metadata, policy)


def open_reader(
    table: CreateTable,
    fields: Mapping[str, FlinkType],
    metadata: Mapping[str, MetadataColumn],
    policy: HostPolicy,
) -> StreamReader:
    """A reader of these columns of a table; see `reader_of`."""
    if option(table, "connector") == "kafka":
        return _kafka(table, fields, metadata, policy)
    if metadata:
        raise SqlNotSupportedError(
            f"table {table_name(table)}: this connector has no metadata columns", clause="METADATA"
        )
    return BoundedReader(lambda: open_source(table, fields))


def _kafka(
    table: CreateTable,
    fields: Mapping[str, FlinkType],
    metadata: Mapping[str, MetadataColumn],
    policy: HostPolicy,
) -> StreamReader:
    # not at the top: its driver is an extra
    try:
        from matih_ray.streaming.connectors.kafka import KafkaReader
        from matih_ray.streaming.connectors.kafka_metadata import check_metadata
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"connector 'kafka' needs the package {error.name}; install matih-ray[kafka]",
            extra="kafka",
        ) from None
    from matih_ray.streaming.connectors.kafka_options import kafka_table

    check_metadata(metadata)
    return KafkaReader(kafka_table(table), fields, metadata, policy)
