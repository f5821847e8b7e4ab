"""Plans: each drive's delta in pages, then what its renamed folders and missing items need."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from matih_ray.errors import DatabaseNotFoundError, SourceError, SourcePermissionError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.onedrive.feed import Feed, FeedPage, read_feed
from matih_ray.sources.onedrive.graph import Graph, Json
from matih_ray.sources.onedrive.inventory import MAX_STORED_CHARS, Tree, restored, stored
from matih_ray.sources.onedrive.slices import (
    AnySlice,
    DriveCursor,
    DrivePlace,
    DrivesSlice,
    FeedSlice,
    MissingSlice,
    SubtreeSlice,
    UnreadableSlice,
    make_slice,
)
from matih_ray.sources.provider_services import SLICE_CPUS
from matih_ray.sources.read_ahead import read_ahead

DELTA, LISTING = "onedrive-delta", "onedrive-drives"
# Not a column: the order is the feed's own, and merges go by arrival.
CURSOR = "deltaLink"
# Each missing item costs a request.
MISSING_ITEMS = 500
# Each renamed folder is listed with all that is below it.
SUBTREE_FOLDERS = 20

_VANISHED = (
    "drive {0} is not among the drives of the connector any more; what was loaded of it stays"
)
_AGAIN_NOTE = (
    "delta tells the latest state of an item, maybe again: load it with writeMode merge and, for "
    "deletions, deleteColumn _deleted"
)
_RESYNC_NOTE = "the delta link of drive {0} has expired: all of it is read, and compared"
_UNKNOWN_NOTE = (
    "the delta link of drive {0} has expired and what it held is not known: deletions since the "
    "last run are missed; a full run with writeMode overwrite shows them"
)


@dataclass
class Drives:
    """The drives that can be read, and why others cannot, by `<kind>/<id>`."""

    found: dict[str, Json] = field(default_factory=dict)
    refused: dict[str, SourceError] = field(default_factory=dict)

    def check(self) -> None:
        """Raise the first refusal if nothing at all can be read."""
        if self.refused and not self.found:
            raise next(iter(self.refused.values()))


def find_drives(graph: Graph) -> Drives:
    """The drives that the connector names.

    Raises:
        SourceError: None of them can be read, or Graph cannot be asked.
    """
    drives = Drives()
    config = graph.config
    kinds = {
        "drives": config.drives,
        "users": config.users,
        "groups": config.groups,
        "sites": config.sites,
    }
    named = [(kind, owner) for kind, owners in kinds.items() for owner in owners]
    answers = read_ahead(lambda who: _drives_of(graph, *who), named)
    for (kind, owner), found in zip(named, answers, strict=True):
        if isinstance(found, SourceError):
            drives.refused[f"{kind}/{owner}"] = found
        else:
            drives.found.update({str(drive["id"]): drive for drive in found})
    drives.found = dict(sorted(drives.found.items()))
    drives.check()
    return drives


def _drives_of(graph: Graph, kind: str, owner: str) -> list[Json] | SourceError:
    """Somebody's drives, or why they cannot be read."""
    try:
        return [graph.drive(owner)] if kind == "drives" else graph.drives_of(kind, owner)
    except (SourcePermissionError, DatabaseNotFoundError) as error:
        return error


def plan_drives(unit: EndpointUnitDescriptor, drives: Drives, seen_ms: int) -> IngestionPlan:
    """One slice of all drives; there is no way to ask for changed ones."""
    whole = make_slice(0, DrivesSlice(seen_ms=seen_ms), len(drives.found))
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=(whole, *_unreadable(drives, 1)),
        strategy=LISTING,
        statistics={"totalRows": len(drives.found)},
        cursor_column=CURSOR,
    )


def plan_items(
    graph: Graph,
    unit: EndpointUnitDescriptor,
    drives: Drives,
    checkpoint: Checkpoint | None,
    target_rows: int,
) -> IngestionPlan:
    """Slices of at most about `target_rows` items; none when nothing is new.

    Raises:
        PlanError: The checkpoint is another source's.
        SourceError: No drive can be read.
    """
    cursor = DriveCursor.of(unit.unit_id, checkpoint)
    feeds = []
    for drive_id in list(drives.found):
        place = cursor.drives.get(drive_id)
        tree = None if place is None or place.tree is None else restored(place.tree)
        try:
            feeds.append(read_feed(graph, drive_id, None if place is None else place.link, tree))
        except (SourcePermissionError, DatabaseNotFoundError) as error:
            drives.refused[f"drives/{drive_id}"] = error
            del drives.found[drive_id]
    drives.check()
    if not drives.refused:  # otherwise they may be among those that cannot be seen
        for drive_id in sorted(cursor.drives.keys() - drives.found.keys()):
            drives.refused[f"drives/{drive_id}"] = SourceError(_VANISHED.format(drive_id))
    slices = _slices(feeds, cursor, target_rows)
    slices += _unreadable(drives, len(slices))
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=DELTA,
        statistics={
            "totalRows": sum(slice_.estimated_rows or 0 for slice_ in slices),
            "drives": len(feeds),
        },
        cursor_column=CURSOR,
        slice_cpus=SLICE_CPUS,
        notes=(_AGAIN_NOTE, *_resync_notes(feeds)),
    )


def _slices(feeds: list[Feed], cursor: DriveCursor, target_rows: int) -> list[IngestionSlice]:
    """Drive by drive. A drive's place moves on inside it only while it is loaded for the first
    time: elsewhere its last slices need the tree that the place belongs to."""
    size = max(target_rows, math.ceil(sum(f.rows for f in feeds) / (MAX_SLICES_PER_PLAN // 2)))
    slices: list[IngestionSlice] = []
    held = {d: len(place.tree or "") for d, place in cursor.drives.items()}
    for feed in feeds:
        own = list(_of_feed(feed, size))
        tree = None if feed.after is None else stored(feed.after)
        held[feed.drive] = 0
        if tree is not None and sum(held.values()) + len(tree) > MAX_STORED_CHARS:
            tree = None
        held[feed.drive] = len(tree or "")
        for number, (params, rows, following) in enumerate(own):
            place = None
            if number == len(own) - 1:
                place = DrivePlace(link=feed.delta_link, tree=tree)
            elif following is not None and feed.before is None and feed.is_whole:
                place = DrivePlace(link=following)
            slices.append(make_slice(len(slices), params, rows, place))
    return slices


def _unreadable(drives: Drives, first: int) -> list[IngestionSlice]:
    return [
        make_slice(first + number, UnreadableSlice(drive=name, reason=error.message))
        for number, (name, error) in enumerate(sorted(drives.refused.items()))
    ]


def _of_feed(feed: Feed, size: int) -> Iterator[tuple[AnySlice, int, str | None]]:
    """A drive's slices, each with its rows and the link of the page that follows."""
    batches = list(_batches(feed.pages, size))
    for number, pages in enumerate(batches):
        following = batches[number + 1][0].link if number + 1 < len(batches) else None
        yield _feed_slice(feed, pages), sum(page.rows for page in pages), following
    folders = {folder: (feed.after or Tree()).path(folder) or "" for folder in feed.moved_folders()}
    for chunk in _chunks(list(folders), SUBTREE_FOLDERS):
        subtree = SubtreeSlice(
            drive=feed.drive, seen_ms=feed.seen_ms, folders={f: folders[f] for f in chunk}
        )
        yield subtree, sum(1 for _ in (feed.after or Tree()).below(chunk)), None
    for chunk in _chunks(feed.missing(), MISSING_ITEMS):
        missing = MissingSlice(drive=feed.drive, seen_ms=feed.seen_ms, items=tuple(chunk))
        yield missing, len(chunk), None


def _feed_slice(feed: Feed, pages: list[FeedPage]) -> FeedSlice:
    folders = sorted(set().union(*(page.folders for page in pages)))
    known = feed.after or Tree()
    return FeedSlice(
        drive=feed.drive,
        seen_ms=feed.seen_ms,
        links=tuple(page.link for page in pages),
        superseded={
            str(number): tuple(page.superseded)
            for number, page in enumerate(pages)
            if page.superseded
        },
        paths={f: path for f in folders if (path := known.path(f)) is not None},
    )


def _batches(pages: list[FeedPage], size: int) -> Iterator[list[FeedPage]]:
    batch: list[FeedPage] = []
    rows = 0
    for page in pages:
        if batch and rows + page.rows > size:
            yield batch
            batch, rows = [], 0
        batch.append(page)
        rows += page.rows
    if batch:
        yield batch


def _chunks(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _resync_notes(feeds: list[Feed]) -> Iterator[str]:
    for feed in feeds:
        if feed.expired:
            note = _UNKNOWN_NOTE if feed.before is None else _RESYNC_NOTE
            yield note.format(feed.drive)
