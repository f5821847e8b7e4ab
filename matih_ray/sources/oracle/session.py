"""One connection: settings under which values are exact, and rows that stream.

Why rows and not the driver's data frames, which are faster: theirs are typed by what the server
says of a result, where an expression over an exact number becomes a float.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import oracledb
import pyarrow as pa

from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.oracle import catalog
from matih_ray.sources.oracle.config import OracleConfig
from matih_ray.sources.oracle.decoding import Row, record_batch
from matih_ray.sources.oracle.failures import mapped_errors
from matih_ray.sources.oracle.login import connected
from matih_ray.sources.sql.dialect import SqlRelation
from matih_ray.sources.sql.row_pages import gathered_rows

# Rows of one round trip, for which the driver makes room ahead of them.
FETCH_ROWS = 1000
_SETTINGS = (
    "ALTER SESSION SET TIME_ZONE = 'UTC'",
    # texts are compared by their bytes, whatever the account's language
    "ALTER SESSION SET NLS_COMP = 'BINARY'",
    "ALTER SESSION SET NLS_SORT = 'BINARY'",
    "ALTER SESSION SET NLS_NUMERIC_CHARACTERS = '.,'",
)


class OracleSession:
    """One connection. Each SELECT reads as of the moment at which it began. Not thread-safe."""

    def __init__(self, config: OracleConfig, password: str | None, policy: HostPolicy) -> None:
        """Connect.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        self._connection = connected(config, password, policy)
        self._schema = config.schema_
        try:
            with mapped_errors("setting up a session"):
                for setting in _SETTINGS:
                    with self._connection.cursor() as cursor:
                        cursor.execute(setting)
                self.version = f"Oracle Database {self._connection.version}"
        except BaseException:
            self.close()
            raise

    def names(self) -> Sequence[catalog.Name]:
        """(schema, name) of all tables and views that the account may see."""
        with mapped_errors("listing tables"):
            return catalog.names(self._rows, self._schema)

    def relations(self, names: Sequence[catalog.Name]) -> Sequence[SqlRelation]:
        """Those of them that exist, with columns, keys and estimates; reads the dictionary only."""
        with mapped_errors("reading the data dictionary"):
            return catalog.relations(self._rows, names)

    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows of a SELECT as batches of this schema, of about `TARGET_BATCH_BYTES`."""
        with mapped_errors("reading rows"), self._connection.cursor() as cursor:
            cursor.arraysize = cursor.prefetchrows = FETCH_ROWS
            # numbers as decimals, large values themselves and not places to ask for them
            cursor.execute(statement, fetch_decimals=True, fetch_lobs=False)
            for rows in gathered_rows(_pages(cursor)):
                yield record_batch(rows, schema)

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        with contextlib.suppress(oracledb.Error, OSError):
            self._connection.close()

    def _rows(self, statement: str) -> list[tuple[object, ...]]:
        with self._connection.cursor() as cursor:
            cursor.arraysize = cursor.prefetchrows = FETCH_ROWS
            cursor.execute(statement)
            return list(cursor.fetchall())


def _pages(cursor: Any) -> Iterator[list[Row]]:
    while rows := cursor.fetchmany():
        yield rows
