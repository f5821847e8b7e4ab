"""Is the Iceberg table the source table? Read with PyIceberg and DuckDB only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psycopg2.extensions
import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog

from matih_ray.testing.checksums import arrow_checksum, forms_of, postgres_checksum


@dataclass(frozen=True)
class Comparison:
    """Rows on both sides, and whether all of their values agree."""

    source_rows: int
    iceberg_rows: int
    checksum_match: bool


def open_batches(home: Path, identifier: str) -> pa.RecordBatchReader:
    """The rows of a table (dotted name) of the embedded catalog below a runtime's home."""
    catalog = SqlCatalog(
        "matih",
        uri=f"sqlite:///{home / 'iceberg' / 'catalog.db'}",
        warehouse=f"file://{home / 'iceberg' / 'warehouse'}",
    )
    return catalog.load_table(identifier).scan().to_arrow_batch_reader()


def compare(
    connection: psycopg2.extensions.connection, table: str, where: str, home: Path, identifier: str
) -> Comparison:
    """Compare rows of a source table (`where` is SQL) with the table that it was loaded into."""
    with open_batches(home, identifier) as batches:
        forms = forms_of(connection, table, batches.schema)
        loaded = arrow_checksum(batches, forms)
    source = postgres_checksum(connection, table, forms, where)
    return Comparison(source.rows, loaded.rows, checksum_match=source == loaded)
