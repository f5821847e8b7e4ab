"""One connection: settings under which the server's text is exact, and cursors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg2
import pyarrow as pa
from psycopg2.extensions import new_type, register_type, string_types

from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.postgres.failures import mapped_errors
from matih_ray.sources.postgres.session import address_of, connect
from matih_ray.sources.redshift.catalog import Catalog, Name
from matih_ray.sources.redshift.config import RedshiftConfig
from matih_ray.sources.redshift.decoding import TextRow, record_batch
from matih_ray.sources.sql.dialect import SqlRelation
from matih_ray.sources.sql.row_pages import gathered_rows

# Clusters of a single node refuse to fetch more at once ("DECLARE", Cursor constraints).
FETCH_ROWS = 1000

# Every type as the server's own text.
_TEXT = new_type(tuple(string_types), "MATIH_TEXT", lambda value, _cursor: value)
_SETTINGS = (
    "SET timezone TO 'UTC'; SET datestyle TO 'ISO, YMD'; SET extra_float_digits TO 2; "
    "SET statement_timeout TO 0"
)
# Without it quoted names are folded to lower case, and those with capitals are not found.
_CASE = "SET enable_case_sensitive_identifier TO true"


class RedshiftSession:
    """One connection in autocommit mode. Not thread-safe."""

    def __init__(self, config: RedshiftConfig, password: str | None, policy: HostPolicy) -> None:
        """Connect.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        self._connection = connect(config, password, policy)
        register_type(_TEXT, self._connection)
        try:
            with mapped_errors(f"setting up a session on {address_of(config)}"):
                ((version,),) = self._rows("SELECT version()")
                self.version = str(version)
                self._run(_SETTINGS)
                if self.is_redshift:
                    self._run(_CASE)
        except BaseException:
            self.close()
            raise
        self._catalog = Catalog.of(self._rows, is_redshift=self.is_redshift)

    @property
    def is_redshift(self) -> bool:
        """Whether it is Redshift and not PostgreSQL."""
        return "Redshift" in self.version

    def names(self) -> Sequence[Name]:
        """(schema, name) of all tables and views that the account may see."""
        with mapped_errors("listing tables"):
            return self._catalog.names()

    def relations(self, names: Sequence[Name]) -> Sequence[SqlRelation]:
        """Those of them that exist, with columns, keys and estimates; reads catalogs only."""
        with mapped_errors("reading the catalog"):
            return self._catalog.relations(names)

    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows of a SELECT as batches of this schema, of about `TARGET_BATCH_BYTES`."""
        with mapped_errors("reading rows"):
            self._run("BEGIN READ ONLY")
            self._run(f"DECLARE matih_rows CURSOR FOR {statement}")
            for rows in gathered_rows(self._pages()):
                yield record_batch(rows, schema)
            self._run("COMMIT")  # after an error the caller closes the connection

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        with contextlib.suppress(psycopg2.Error):
            self._connection.close()

    def _pages(self) -> Iterator[list[TextRow]]:
        while rows := self._rows(f"FETCH FORWARD {FETCH_ROWS} FROM matih_rows"):
            yield rows

    def _rows(self, statement: str) -> list[TextRow]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            found: list[Any] = cursor.fetchall()
        return found

    def _run(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
