"""Old snapshots: which may go, and the files that go with them.

Kept are the heads of all branches and tags, and of each branch's past the newest ones and all that
are young: whoever reads a snapshot, plans a merge on it or wants to go back to it, began not longer
ago than that age. Markers of our own streams are table properties and outlive all snapshots; other
engines look for theirs in summaries, so the newest of each of them is kept, too.

The commit asserts every branch and tag as they were read, and the tag under which a rollback holds
the snapshot that it goes back to. Files are deleted after the commit, and only those that no
remaining snapshot names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pyiceberg.catalog import Catalog
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Snapshot, ancestors_of
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    AssertTableUUID,
    RemoveSnapshotsUpdate,
)

from matih_ray.errors import SinkUnavailableError
from matih_ray.sinks.iceberg.boundary import (
    COMMIT_ERRORS,
    CommitAnswer,
    answer_of,
    mapped,
    translated,
)
from matih_ray.sinks.iceberg.catalog import CatalogConfig
from matih_ray.sinks.iceberg.naming import ROLLBACK_TAG

# Each attempt is one call of the catalog; a busy writer leaves a gap sooner.
MAX_ATTEMPTS = 20
# Deleting waits for the storage, not for a processor.
DELETES_AT_ONCE = 16
# Where Flink, Spark and Kafka Connect look for what they have committed.
_FOREIGN_MARKERS = ("flink.job-id", "spark.sql.streaming.queryId", "kafka.connect.commit-id")


@dataclass(frozen=True)
class Expired:
    """Snapshots that went, and files that were deleted with them."""

    snapshots: int = 0
    files: int = 0


def expire(
    catalog: Catalog,
    config: CatalogConfig,
    identifier: tuple[str, ...],
    keep: int,
    cutoff_ms: int,
    *,
    dry_run: bool,
) -> Expired:
    """Take snapshots out of a table that are older than the cutoff, and delete their files.

    Raises:
        SinkError: The catalog refuses, or others committed in every attempt.
    """
    what = f"expire snapshots of {'.'.join(identifier)}"
    for _ in range(MAX_ATTEMPTS):
        with mapped(what, config):
            table = catalog.load_table(identifier)
            doomed = expirable(table, keep, cutoff_ms)
        if not doomed or dry_run:
            return Expired(len(doomed))
        with mapped(what, config):
            manifests = {
                manifest.manifest_path: manifest
                for snapshot in doomed
                for manifest in snapshot.manifests(table.io)
            }
        try:
            _commit(catalog, table, doomed)
        except COMMIT_ERRORS as error:
            if answer_of(error) is CommitAnswer.CONFLICT or _overtaken(catalog, table, doomed):
                continue
            # if it was applied nevertheless, the files that it leaves are orphans one day
            raise translated(what, error, config) from None
        with mapped(what, config):
            after = catalog.load_table(identifier)
            paths = _unreachable(after, doomed, manifests)
            return Expired(len(doomed), delete_all(after.io, paths))
    raise SinkUnavailableError(f"cannot {what}: others committed {MAX_ATTEMPTS} times in a row")


def expirable(table: Table, keep: int, cutoff_ms: int) -> list[Snapshot]:
    """Snapshots that nobody needs any more."""
    metadata = table.metadata
    kept: set[int] = set()
    for ref in metadata.refs.values():
        head = metadata.snapshot_by_id(ref.snapshot_id)
        if head is None:
            continue
        kept.add(head.snapshot_id)
        if ref.snapshot_ref_type == SnapshotRefType.BRANCH:
            newest = zip(range(keep), ancestors_of(head, metadata), strict=False)
            kept |= {snapshot.snapshot_id for _, snapshot in newest}
    kept |= set(_foreign(metadata.snapshots))
    return [
        snapshot
        for snapshot in metadata.snapshots
        if snapshot.snapshot_id not in kept and snapshot.timestamp_ms < cutoff_ms
    ]


def _foreign(snapshots: Sequence[Snapshot]) -> Iterator[int]:
    """The newest snapshot of each other engine's job."""
    newest: dict[tuple[str, str | None], Snapshot] = {}
    for snapshot in sorted(snapshots, key=lambda one: one.sequence_number or 0):
        for name in _FOREIGN_MARKERS:
            if snapshot.summary is not None and (job := snapshot.summary.get(name)) is not None:
                # every commit of Kafka Connect has an id of its own: one newest for all
                newest[name, None if name.endswith("commit-id") else job] = snapshot
    yield from (snapshot.snapshot_id for snapshot in newest.values())


def _commit(catalog: Catalog, table: Table, doomed: Sequence[Snapshot]) -> None:
    refs = {name: ref.snapshot_id for name, ref in table.metadata.refs.items()}
    asserted: dict[str, int | None] = {MAIN_BRANCH: None, ROLLBACK_TAG: None, **refs}
    catalog.commit_table(
        table,
        (
            AssertTableUUID(uuid=table.metadata.table_uuid),
            *(AssertRefSnapshotId(ref=name, snapshot_id=head) for name, head in asserted.items()),
        ),
        (RemoveSnapshotsUpdate(snapshot_ids=[one.snapshot_id for one in doomed]),),
    )


def _overtaken(catalog: Catalog, table: Table, doomed: Sequence[Snapshot]) -> bool:
    """Whether another expiry has taken one of the snapshots."""
    try:
        now = catalog.load_table(table.name()).metadata
    except COMMIT_ERRORS:
        return False  # the commit's own exception says more
    return any(now.snapshot_by_id(one.snapshot_id) is None for one in doomed)


def _unreachable(
    table: Table, expired: Iterable[Snapshot], manifests: dict[str, ManifestFile]
) -> set[str]:
    """Manifest lists, manifests and data files of expired snapshots that no other one names."""
    kept = {
        one.manifest_path: one
        for snapshot in table.metadata.snapshots
        for one in snapshot.manifests(table.io)
    }
    gone = {path: one for path, one in manifests.items() if path not in kept}
    data = {
        entry.data_file.file_path
        for manifest in gone.values()
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
    }
    if data:
        data -= data_files(table.io, kept.values())
    return {*(one.manifest_list for one in expired if one.manifest_list), *gone, *data}


def data_files(io: FileIO, manifests: Iterable[ManifestFile]) -> set[str]:
    """The files that are part of some manifest's snapshots."""
    return {
        entry.data_file.file_path
        for manifest in manifests
        for entry in manifest.fetch_manifest_entry(io)
    }


def delete_all(io: FileIO, paths: Iterable[str]) -> int:
    """Delete files, as far as possible; returns how many went."""

    def delete(path: str) -> bool:
        try:
            io.delete(path)
        except OSError:  # gone already, or the next pass will find it
            return False
        return True

    with ThreadPoolExecutor(DELETES_AT_ONCE, thread_name_prefix="delete") as threads:
        return sum(threads.map(delete, sorted(paths)))
