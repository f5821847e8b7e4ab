"""What a prepared target holds for writers and committers: plain data, no secrets."""

from __future__ import annotations

from pyiceberg.table import Table

from matih_ray.errors import FencedError
from matih_ray.model.finalize import Finalize
from matih_ray.model.policy import MergeRule, SchemaChange
from matih_ray.model.receipt import CommitMarker
from matih_ray.model.value import Value


class IcebergTarget(Value):
    """The payload of a `PreparedTarget` of this sink.

    `predecessor` is the stream's marker as `prepare` saw it: what a new run's first commit must
    still find. Schema and spec ids name the versions of the table that files are written for;
    both stay in the table's metadata for ever.
    """

    identifier: tuple[str, ...]
    table_uuid: str
    schema_id: int
    spec_id: int
    target_file_bytes: int
    checksum: bool
    predecessor: CommitMarker | None
    merge: MergeRule | None = None
    schema_change: SchemaChange = SchemaChange.FAIL
    finalize: Finalize | None = None

    def check_is(self, table: Table) -> None:
        """Raise `FencedError` if the table of this name is not the one that was prepared."""
        if str(table.metadata.table_uuid) != self.table_uuid:
            raise FencedError(
                f"table {'.'.join(self.identifier)} was dropped and created again since this run "
                "prepared; start a new run",
                table=".".join(self.identifier),
            )
