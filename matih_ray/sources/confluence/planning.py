"""Plans: in each space what came or went, then what has changed, in slices of some pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from matih_ray.errors import DatabaseNotFoundError, PlanError, SourceError, SourcePermissionError
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.plan import IngestionPlan, IngestionSlice
from matih_ray.model.policy import MAX_SLICES_PER_PLAN
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.confluence.site import ConfluenceSite, Json
from matih_ray.sources.confluence.slices import (
    CommentsSlice,
    LabelsSlice,
    PagesSlice,
    Place,
    SiteCursor,
    SpacesSlice,
    UnreadableSlice,
    make_slice,
)
from matih_ray.sources.confluence.sweep import Seen, Swept, changes, recent, sweep
from matih_ray.sources.provider_services import SLICE_CPUS

WINDOW, COMMENTS, LISTING = "confluence-space-window", "confluence-comments", "confluence-listing"
# Not a column of every unit: rows of later windows may be older where pages were moved.
CURSOR = "spaceWindow"
LABELS_A_SLICE = 50
# What the API takes in one request.
MAX_SPACES_ASKED = 100
# Ids of a plan, about 15 bytes each.
MAX_PLANNED_PAGES = 2_000_000

_VANISHED = "space {0} cannot be seen any more; what was loaded of it stays"
_UNKNOWN_NOTE = (
    "space {0} has too many pages to remember: purged and moved ones are not found, those in the "
    "trash are"
)


@dataclass
class Spaces:
    """The spaces that can be read, by id, and why others cannot, by key or id."""

    found: dict[str, Json] = field(default_factory=dict)
    refused: dict[str, SourceError] = field(default_factory=dict)

    def check(self) -> None:
        """Raise the first refusal if nothing at all can be read."""
        if self.refused and not self.found:
            raise next(iter(self.refused.values()))


def find_spaces(site: ConfluenceSite) -> Spaces:
    """The spaces that are to be read.

    Raises:
        SourceError: None of them can be seen, or the site cannot be asked.
    """
    spaces = Spaces()
    found = {str(space["id"]): space for page in site.spaces() for space in page}
    spaces.found = dict(sorted(found.items()))
    keys = {str(space["key"]).lower() for space in found.values()}
    for key in site.config.space_keys:
        if key.lower() not in keys:
            spaces.refused[key] = SourcePermissionError(
                f"space {key} is not there, or the account may not see it", part=key
            )
    spaces.check()
    return spaces


def plan_pages(
    site: ConfluenceSite,
    unit: EndpointUnitDescriptor,
    spaces: Spaces,
    checkpoint: Checkpoint | None,
    size: int,
) -> IngestionPlan:
    """Slices of at most `size` pages of one space; none when nothing is new.

    Raises:
        PlanError: The checkpoint is another source's, or there is too much for one plan.
        SourceError: No space can be read.
    """
    cursor = SiteCursor.of(unit.unit_id, checkpoint)
    slices: list[IngestionSlice] = []
    notes: list[str] = []
    pages = 0
    for space_id in list(spaces.found):
        place = cursor.places.get(space_id)
        try:
            swept = sweep(site, space_id, place)
        except (SourcePermissionError, DatabaseNotFoundError) as error:
            spaces.refused[space_id] = error
            del spaces.found[space_id]
            continue
        pages += len(swept.changed) + len(swept.special)
        _check_size(unit, pages, len(slices))
        if site.config.reconcile and not swept.known:
            notes.append(_UNKNOWN_NOTE.format(space_id))
        for params, after in _of_space(site, space_id, place, swept, size):
            slices.append(make_slice(len(slices), params, len(params.ids), space_id, after))
    spaces.check()
    _report_vanished(spaces, cursor)
    return _plan(unit, WINDOW, [*slices, *_unreadable(spaces, len(slices))], pages, notes)


def plan_comments(
    site: ConfluenceSite, unit: EndpointUnitDescriptor, checkpoint: Checkpoint | None
) -> IngestionPlan:
    """A slice of footer comments and one of inline ones, as far as there are new ones."""
    cursor = SiteCursor.of(unit.unit_id, checkpoint)
    slices: list[IngestionSlice] = []
    for kind in ("footer", "inline"):
        place = cursor.places.get(kind)
        changed, upper, near = changes(site, site.comments(kind, body=False), place)
        if not changed:
            continue
        params = CommentsSlice(
            of=kind,
            lower=min(seen.at for seen in changed) if place is not None else None,
            upper=upper,
            loaded=() if place is None else place.recent,
        )
        after = Place(at=upper, recent=recent(near, upper, site.config.overlap_s))
        slices.append(make_slice(len(slices), params, len(changed), kind, after))
    rows = sum(slice_.estimated_rows or 0 for slice_ in slices)
    return _plan(unit, COMMENTS, slices, rows, [])


def plan_spaces(
    site: ConfluenceSite, unit: EndpointUnitDescriptor, spaces: Spaces
) -> IngestionPlan:
    """One slice of all spaces."""
    whole = make_slice(0, SpacesSlice(seen_ms=site.seen_ms), len(spaces.found))
    return _plan(unit, LISTING, [whole, *_unreadable(spaces, 1)], len(spaces.found), [])


def plan_labels(
    site: ConfluenceSite, unit: EndpointUnitDescriptor, spaces: Spaces
) -> IngestionPlan:
    """Slices of some labels each, with all their pages."""
    seen_ms = site.seen_ms
    labels = sorted(
        (str(label["id"]), str(label.get("name")), str(label.get("prefix")))
        for page in site.labels()
        for label in page
    )
    chosen = tuple(spaces.found) if site.config.space_keys else ()
    slices = [
        make_slice(number, LabelsSlice(labels=tuple(some), spaces=chosen, seen_ms=seen_ms))
        for number, some in enumerate(_chunks(labels, LABELS_A_SLICE))
    ]
    return _plan(unit, LISTING, [*slices, *_unreadable(spaces, len(slices))], None, [])


def _of_space(
    site: ConfluenceSite, space_id: str, place: Place | None, swept: Swept, size: int
) -> Iterator[tuple[PagesSlice, Place | None]]:
    """What came or went first, then what has changed: its slices move the place along."""
    since = None if place is None else place.at
    overlap_s = site.config.overlap_s
    special = list(_chunks(swept.special, size))
    windows = list(_chunks(swept.changed, size))
    end = Place(
        at=swept.upper, recent=recent(swept.near, swept.upper, overlap_s), known=swept.known
    )
    for number, ids in enumerate(special):
        params = PagesSlice(
            space=space_id, ids=tuple(ids), since=since, seen_ms=max(swept.seen_ms, 1)
        )
        is_last = not windows and number == len(special) - 1
        yield params, end if is_last else None
    done: list[Seen] = [] if place is None else [
        seen for seen in swept.near if (seen.id, seen.version) in set(place.recent)
    ]  # fmt: skip
    for number, window in enumerate(windows):
        done += window
        params = PagesSlice(space=space_id, ids=tuple(seen.id for seen in window), since=since)
        upto = min(window[-1].at, swept.upper)
        inside = Place(at=max(upto, since or 0), recent=recent(done, upto, overlap_s))
        yield params, end if number == len(windows) - 1 else inside


def _report_vanished(spaces: Spaces, cursor: SiteCursor) -> None:
    if spaces.refused:
        return  # they may be among those
    for space_id in sorted(cursor.places.keys() - spaces.found.keys()):
        spaces.refused[space_id] = SourceError(_VANISHED.format(space_id))


def _check_size(unit: EndpointUnitDescriptor, pages: int, slices: int) -> None:
    if pages > MAX_PLANNED_PAGES or slices > MAX_SLICES_PER_PLAN // 2:
        raise PlanError(
            f"{unit.unit_id} has more than {MAX_PLANNED_PAGES} pages to load; make several "
            "connectors with some spaceKeys each",
            unit_id=unit.unit_id,
        )


def _unreadable(spaces: Spaces, first: int) -> list[IngestionSlice]:
    return [
        make_slice(first + number, UnreadableSlice(space=name, reason=error.message), part=name)
        for number, (name, error) in enumerate(sorted(spaces.refused.items()))
    ]


def _plan(
    unit: EndpointUnitDescriptor,
    strategy: str,
    slices: Sequence[IngestionSlice],
    rows: int | None,
    notes: Sequence[str],
) -> IngestionPlan:
    return IngestionPlan(
        endpoint_id=unit.endpoint_id,
        unit_id=unit.unit_id,
        slices=tuple(slices),
        strategy=strategy,
        statistics={"totalRows": rows},
        cursor_column=CURSOR,
        slice_cpus=SLICE_CPUS,
        notes=tuple(notes),
    )


def _chunks(items: list, size: int) -> Iterator[list]:  # type: ignore[type-arg]  # of ids, and of what has them
    for start in range(0, len(items), size):
        yield items[start : start + size]
