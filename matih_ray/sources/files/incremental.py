"""Plans of new files by the time at which the store got them.

The cursor is the greatest time loaded, and the files of that second by name and version: a file
that appears, or is overwritten, later with the same time is neither lost nor loaded twice. S3 dates
a multipart upload by its start, so that a file may appear *below* the cursor;
`lateCommits=lookback` keeps the names of all files of the last `lookback` seconds and finds it. A
changed file is a new one, and loaded whole.
"""

from __future__ import annotations

from matih_ray.errors import PlanError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import IngestionPolicy, LateCommits
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import Value
from matih_ray.sources.files.listing import FileSet
from matih_ray.sources.files.slices import grouped, make_slice, rows_in, whole
from matih_ray.sources.files.store import StoredFile
from matih_ray.sources.files.types import FILE_MODIFIED_AT

CURSOR = "files-modified"
# The names are part of every slice and of the checkpoint, some hundred bytes each.
MAX_REMEMBERED_FILES = 1000


class FilesCursor(Value):
    """Everything before `since_s` is loaded, and so are `files` (path to time and version) from
    then on."""

    since_s: int
    files: dict[str, tuple[int, str]]


def plan_new_files(
    unit: EndpointUnitDescriptor,
    found: FileSet,
    checkpoint: Checkpoint | None,
    policy: IngestionPolicy,
    target_rows: int,
) -> IngestionPlan:
    """Slices of files that the checkpoint does not know, oldest first.

    Raises:
        PlanError: The cursor is not this source's, or too many files have one time.
    """
    if policy.cursor_column not in (None, FILE_MODIFIED_AT):
        raise PlanError(
            f"{unit.unit_id} has one cursor column, {FILE_MODIFIED_AT}", unit_id=unit.unit_id
        )
    window_s = int(policy.lookback) if policy.late_commits is LateCommits.LOOKBACK else 0
    known = _cursor(unit, checkpoint)
    new = [file for file in found.files if known is None or _is_new(file, known)]
    parts = [(whole(file), rows_in(unit, file)) for file in new]
    slices: list[IngestionSlice] = []
    for group, rows in grouped(parts, target_rows):
        known = _advanced(unit, known, [part.file for part in group], window_s)
        slices.append(make_slice(len(slices), group, rows, known.to_dict()))
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=CURSOR,
        statistics={"totalFiles": len(new), "totalBytes": sum(file.size for file in new)},
        cursor_column=FILE_MODIFIED_AT,
        notes=("a file that was changed after it was loaded is loaded again, whole", *found.notes),
    )


def _cursor(unit: EndpointUnitDescriptor, checkpoint: Checkpoint | None) -> FilesCursor | None:
    if checkpoint is None or checkpoint.cursor is None:
        return None
    if not isinstance(checkpoint.cursor, dict):
        raise PlanError(
            f"the checkpoint of {unit.unit_id} is not one of files; reset it", unit_id=unit.unit_id
        )
    return FilesCursor.from_json(checkpoint.cursor)


def _is_new(file: StoredFile, known: FilesCursor) -> bool:
    loaded = (file.modified_s, file.version)
    return file.modified_s >= known.since_s and known.files.get(file.path) != loaded


def _advanced(
    unit: EndpointUnitDescriptor, known: FilesCursor | None, files: list[StoredFile], window_s: int
) -> FilesCursor:
    """The cursor once these files are loaded. It never goes back."""
    times = {} if known is None else dict(known.files)
    times.update((file.path, (file.modified_s, file.version)) for file in files)
    since_s = max(time_s for time_s, _ in times.values()) - window_s
    if known is not None:
        since_s = max(since_s, known.since_s)
    kept = {path: seen for path, seen in times.items() if seen[0] >= since_s}
    if len(kept) > MAX_REMEMBERED_FILES:
        raise PlanError(
            f"{unit.unit_id} has more than {MAX_REMEMBERED_FILES} files within {window_s + 1} s, "
            "which is more than a checkpoint remembers; use full runs or a shorter lookback",
            unit_id=unit.unit_id,
        )
    return FilesCursor(since_s=since_s, files=kept)
