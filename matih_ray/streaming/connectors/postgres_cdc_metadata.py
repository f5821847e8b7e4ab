"""Metadata columns of the `postgres-cdc` connector: what a change has beside its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone

import pyarrow as pa

from matih_ray.sources.postgres.changes.messages import Begin
from matih_ray.streaming.connectors.postgres_cdc_options import ChangesTable
from matih_ray.streaming.connectors.reader import KIND_NAMES, MetadataColumn
from matih_ray.streaming.sql.casts import cast_function
from matih_ray.streaming.sql.types import STRING, FlinkType

# What Flink CDC says of a row that was there before.
_SNAPSHOT_TIME = datetime(1970, 1, 1, tzinfo=timezone.utc)
# Keys and types of Flink CDC's connector.
KEYS = {
    "database_name": STRING,
    "schema_name": STRING,
    "table_name": STRING,
    "op_ts": FlinkType("TIMESTAMP_LTZ", 3),
    "row_kind": STRING,
}


def metadata_columns(
    columns: Mapping[str, MetadataColumn],
    table: ChangesTable,
    rows: int,
    kinds: pa.Array | None,
    begins: Sequence[Begin] | None,
) -> dict[str, pa.Array]:
    """The metadata columns of these rows; without `begins` they are of the snapshot."""

    def times() -> list[datetime]:
        return [_SNAPSHOT_TIME] * rows if begins is None else [one.committed_at for one in begins]

    def kind_names() -> list[str]:
        return [KIND_NAMES[kind] for kind in ([0] * rows if kinds is None else kinds.to_pylist())]

    values: dict[str, Callable[[], Sequence[object]]] = {
        "database_name": lambda: [table.config.database] * rows,
        "schema_name": lambda: [table.schema] * rows,
        "table_name": lambda: [table.table] * rows,
        "op_ts": times,
        "row_kind": kind_names,
    }
    found = {}
    for name, column in columns.items():
        kind = KEYS[column.key]
        array = pa.array(values[column.key](), kind.arrow if kind is STRING else pa.timestamp("us"))
        found[name] = cast_function(kind, column.type)(array.cast(kind.arrow, safe=False))
    return found
