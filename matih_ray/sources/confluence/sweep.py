"""What has changed in a space, and what is there: ids first, pages later.

A page that is edited while lists are gone through moves to another place in them. So lists tell ids
only, the pages themselves are then asked for by id, and a window ends when its list was begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from matih_ray.sources.confluence.rows import changed_at, version_of
from matih_ray.sources.confluence.site import LIVE, NEWEST, ConfluenceSite, Json
from matih_ray.sources.confluence.slices import Place, Recent
from matih_ray.sources.declared import packed, text, unpacked

MICROS = 1_000_000
# Kept near the end of a window; what more there is may be loaded twice, which merging undoes.
MAX_RECENT = 500
# Of one space, some hundred thousand ids; above it deletions are found in the trash only.
MAX_KNOWN_CHARS = 400_000


@dataclass(frozen=True)
class Seen:
    """A page or comment in a list: its id, version, when that was made, and what it is below."""

    id: str
    version: int
    at: int
    parent: str = ""


@dataclass(frozen=True)
class Swept:
    """What a space needs.

    `changed` is in the order of change. `special` are pages that appeared, vanished or were moved.
    `upper` is the end of the window, `near` all that is known of its last part, and `known` the
    packed ids, versions and parents of all pages that are there, empty where they are not known.
    """

    changed: list[Seen]
    special: list[str]
    upper: int
    near: list[Seen]
    known: str
    seen_ms: int


def sweep(site: ConfluenceSite, space_id: str, place: Place | None) -> Swept:
    """Compare a space with its place.

    Raises:
        SourceError: It cannot be read.
    """
    overlap = int(site.config.overlap_s * MICROS)
    if place is None or place.at is None:
        live, begun = _all(site, site.space_pages(space_id, LIVE, "id"))
        upper = _upper(live, begun, None)
        trashed, _ = _all(site, site.space_pages(space_id, "trashed", "id"))
        return Swept(
            changed=sorted(live, key=lambda seen: (seen.at, seen.id)),
            special=sorted(seen.id for seen in trashed),
            upper=upper,
            near=_near(live, upper, overlap),
            known=_packed(live),
            seen_ms=begun,
        )
    lower = place.at - overlap
    listed, begun = _since(site, site.space_pages(space_id, LIVE, NEWEST), lower)
    upper = _upper(listed, begun, place.at)
    loaded = dict(place.recent)
    new = [seen for seen in listed if loaded.get(seen.id) != seen.version]
    special, known = _compared(site, space_id, place, new)
    came = set(special)
    changed = [seen for seen in new if seen.id not in came]
    return Swept(
        changed=sorted(changed, key=lambda seen: (seen.at, seen.id)),
        special=special,
        upper=upper,
        near=_near(listed, upper, overlap),
        known=known,
        seen_ms=begun,
    )


def changes(
    site: ConfluenceSite, lists: Iterable[list[Json]], place: Place | None
) -> tuple[list[Seen], int, list[Seen]]:
    """Comments that are new or changed, the end of their window, and what is near it."""
    overlap = int(site.config.overlap_s * MICROS)
    at = None if place is None else place.at
    listed, begun = _since(site, lists, None if at is None else at - overlap)
    upper = _upper(listed, begun, at)
    loaded = dict(place.recent) if place is not None else {}
    changed = [seen for seen in listed if loaded.get(seen.id) != seen.version and seen.at <= upper]
    return changed, upper, _near(listed, upper, overlap)


def recent(near: Iterable[Seen], upper: int, overlap_s: float) -> Recent:
    """What is kept of the last part of a window that ends at `upper`."""
    lower = upper - int(overlap_s * MICROS)
    kept = sorted((seen for seen in near if lower <= seen.at <= upper), key=lambda seen: -seen.at)
    return tuple((seen.id, seen.version) for seen in kept[:MAX_RECENT])


def _compared(
    site: ConfluenceSite, space_id: str, place: Place, changed: list[Seen]
) -> tuple[list[str], str]:
    """Pages that came, went or changed outside the window, and `known` for the next run. One that
    came may have a time inside of the window's overlap, and all of its history is new."""
    if not site.config.reconcile:
        trashed, _ = _all(site, site.space_pages(space_id, "trashed", "id"))
        return sorted(seen.id for seen in trashed), ""
    live, _ = _all(site, site.space_pages(space_id, LIVE, "id"))
    if not place.known:
        trashed, _ = _all(site, site.space_pages(space_id, "trashed", "id"))
        return sorted(seen.id for seen in trashed), _packed(live)
    known = _unpacked(place.known)
    there = {seen.id: (seen.version, seen.parent) for seen in live}
    # a version that no window has was made by a clock that was set back; a page that was put below
    # another one has no new version
    other = {id_ for id_ in known.keys() | there.keys() if known.get(id_) != there.get(id_)}
    began = place.at or 0
    inside = {seen.id for seen in changed if seen.id in known or seen.at > began}
    return sorted(other - inside), _packed(live)


def _all(site: ConfluenceSite, lists: Iterator[list[Json]]) -> tuple[list[Seen], int]:
    return _since(site, lists, None)


def _since(
    site: ConfluenceSite, lists: Iterable[list[Json]], lower: int | None
) -> tuple[list[Seen], int]:
    """What was changed at `lower` or later, once each, and the server's time in milliseconds when
    the list was begun."""
    found: dict[str, Seen] = {}
    begun: int | None = None
    for page in lists:
        begun = site.seen_ms if begun is None else begun
        for thing in page:
            at, parent = changed_at(thing) or 0, text(thing, "parentId") or ""
            seen = Seen(str(thing["id"]), version_of(thing), at, parent)
            if lower is not None and seen.at < lower:
                return list(found.values()), begun
            earlier = found.get(seen.id)
            if earlier is None or seen.version > earlier.version:
                found[seen.id] = seen
    return list(found.values()), begun or 0


def _upper(listed: list[Seen], begun_ms: int, earlier: int | None) -> int:
    """The end of a window: nothing that is older can be missing from a list begun at that time."""
    # the server's header has whole seconds
    end = (begun_ms + 999) * 1000
    newest = max((seen.at for seen in listed), default=0)
    return max(min(newest, end), earlier or 0)


def _near(listed: list[Seen], upper: int, overlap: int) -> list[Seen]:
    return [seen for seen in listed if seen.at >= upper - overlap]


def _packed(live: Iterable[Seen]) -> str:
    """Ids, as distances since they are whole numbers, versions and parents."""
    try:
        pages = sorted((int(seen.id), seen.version, seen.parent) for seen in live)
    except ValueError:
        return ""
    ids = [id_ for id_, _, _ in pages]
    distances = [id_ - before for before, id_ in zip([0, *ids], ids, strict=False)]
    versions, parents = [page[1] for page in pages], [page[2] for page in pages]
    told = packed([distances, versions, parents])
    return told if len(told) <= MAX_KNOWN_CHARS else ""


def _unpacked(known: str) -> dict[str, tuple[int, str]]:
    distances, versions, parents = unpacked(known)
    pages = zip(versions, parents, strict=True)
    return dict(zip(map(str, accumulate(distances)), pages, strict=True))
