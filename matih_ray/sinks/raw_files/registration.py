"""Registration: an Iceberg table that shows the files of a raw one, as far as they are published.

The files stay where they are (`add_files`). How far the table follows is one of its properties, set
in the same transaction; whoever comes next brings it up to date.
"""

from __future__ import annotations

import contextlib

from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.table import Table
from sqlalchemy.exc import IntegrityError

from matih_ray.errors import SinkError, SinkUnavailableError
from matih_ray.sinks.iceberg.boundary import mapped
from matih_ray.sinks.iceberg.catalog import open_catalog
from matih_ray.sinks.iceberg.schema import iceberg_schema
from matih_ray.sinks.iceberg.sink import TABLE_PROPERTIES
from matih_ray.sinks.raw_files.config import Place
from matih_ray.sinks.raw_files.log import CommitLog, LogEntry
from matih_ray.sinks.raw_files.target import decoded

# The last entry of the log that the table shows, and the raw table that it is of.
VERSION = "matih.raw.version"
TABLE_ID = "matih.raw.table"
# Others that bring the same table up to date at the same moment.
ATTEMPTS = 10


def registered(place: Place, log: CommitLog, entry: LogEntry | None = None) -> None:
    """Let the Iceberg table show what is published, if tables are registered at all.

    Raises:
        SinkUnavailableError: The catalog does not answer, or others change the table all along.
        SinkError: The catalog refuses, or a column has no Iceberg type.
    """
    config = place.catalog
    if config is None:
        return
    entry = entry or log.latest()
    if entry is None:
        return
    for _ in range(ATTEMPTS):
        with (
            mapped(f"register {log.paths.table}", config),
            contextlib.suppress(CommitFailedException),
        ):
            _follow(open_catalog(config), place, log, entry)
            return
    raise SinkUnavailableError(f"cannot register {log.paths.table}: others change it all along")


def _follow(catalog: Catalog, place: Place, log: CommitLog, entry: LogEntry) -> None:
    table = _loaded(catalog, place, log, entry)
    same = table.properties.get(TABLE_ID) == entry.table_id
    seen = int(table.properties.get(VERSION, "0")) if same else 0
    if seen >= entry.version:
        return
    missing = [log.entry(version) for version in range(seen + 1, entry.version + 1)] if same else []
    anew = not same or any(one.replaces for one in missing)
    files = log.files_at(entry.version) if anew else [file for one in missing for file in one.added]
    paths = [f"{place.uri}/{log.paths.table}/{file.name}" for file in files]
    wanted = iceberg_schema(decoded(entry.arrow_schema))
    known = set(table.schema().column_names)
    with table.transaction() as transaction:
        if not set(wanted.column_names) <= known:
            with transaction.update_schema() as update:
                update.union_by_name(wanted)
        if anew and table.current_snapshot() is not None:
            transaction.delete(AlwaysTrue())
        if paths:
            try:
                transaction.add_files(paths, check_duplicate_files=False)
            except ValueError as error:
                raise SinkError(
                    f"cannot register {log.paths.table}: {error}; choose encodings of its columns "
                    "that Iceberg has types for",
                ) from None
        transaction.set_properties({VERSION: str(entry.version), TABLE_ID: entry.table_id})


def _loaded(catalog: Catalog, place: Place, log: CommitLog, entry: LogEntry) -> Table:
    """The Iceberg table of the raw table's name, created if it is not there."""
    identifier = tuple(log.paths.table.split("/"))  # its parts are safe names already
    with contextlib.suppress(NoSuchTableError, NoSuchNamespaceError):
        return catalog.load_table(identifier)
    for depth in range(1, len(identifier)):
        with contextlib.suppress(NamespaceAlreadyExistsError, IntegrityError):
            catalog.create_namespace(identifier[:depth])
    try:
        return catalog.create_table(
            identifier,
            iceberg_schema(decoded(entry.arrow_schema)),
            location=f"{place.uri}/{log.paths.hidden}/iceberg",
            properties=TABLE_PROPERTIES,
        )
    except TableAlreadyExistsError:
        return catalog.load_table(identifier)
