"""Slices to rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice

from matih_ray.sources.confluence.planning import MAX_SPACES_ASKED
from matih_ray.sources.confluence.rows import (
    GONE,
    changed_at,
    comment_row,
    label_row,
    link_row,
    no_link_row,
    no_revision_row,
    page_row,
    purged_row,
    revision_row,
    space_row,
    version_of,
)
from matih_ray.sources.confluence.site import ConfluenceSite, Json
from matih_ray.sources.confluence.slices import (
    CommentsSlice,
    LabelsSlice,
    PagesSlice,
    SpacesSlice,
)
from matih_ray.sources.confluence.storage import Link, links_of
from matih_ray.sources.confluence.sweep import MICROS
from matih_ray.sources.declared import Row, instant, text
from matih_ray.sources.read_ahead import read_ahead

# A page by what links call it: the id of its space and its title.
Name = tuple[str, str]


def space_rows(site: ConfluenceSite, params: SpacesSlice) -> Iterator[Row]:
    """All spaces."""
    for page in site.spaces():
        for space in page:
            yield space_row(space, params.seen_ms)


def page_rows(site: ConfluenceSite, params: PagesSlice) -> Iterator[Row]:
    """Pages by id; those that are not there any more are deletions."""
    keys = site.space_keys()
    missing = dict.fromkeys(params.ids)
    for page in _pages(site, params, body=True):
        if missing.pop(str(page["id"]), ...) is ...:
            continue  # it was there before: lists shift
        yield page_row(page, keys, params.seen_ms, wanted=_is_wanted(site, page))
    for page_id in missing:
        seen_ms = params.seen_ms or site.seen_ms
        yield purged_row(page_id, params.space, keys, seen_ms)


def revision_rows(site: ConfluenceSite, params: PagesSlice) -> Iterator[Row]:
    """All versions of pages, or those since they were loaded before; those of pages that are in the
    trash, or were moved away, as deletions."""
    keys = site.space_keys()

    def asked(page: Json) -> tuple[Json, Iterator[list[Json]] | None]:
        return page, _begun(site.versions(str(page["id"]))) if _is_there(site, page) else None

    for page, versions in read_ahead(asked, _pages(site, params, body=False)):
        if versions is None:
            if params.since is not None:  # otherwise nothing was loaded before
                for number in range(1, version_of(page) + 1):
                    yield no_revision_row(page, number, params.seen_ms)
            continue
        # one that appeared here was not loaded from here before
        for revision in _new(site, versions, None if params.seen_ms else params.since):
            yield revision_row(page, revision, keys)


def link_rows(site: ConfluenceSite, params: PagesSlice) -> Iterator[Row]:
    """The targets of pages, and those that they had when they were loaded before."""
    keys = site.space_keys()
    by_key = {key.lower(): space_id for space_id, key in keys.items()}
    for pages in site.pages_by_id(params.ids, body=True):
        linking = [
            (page, [(link, _name(page, link, by_key)) for link in _own_links(site, page)])
            for page in pages
        ]
        targets = _targets(site, [name for _, own in linking for _, name in own])
        earlier = _earlier_links(site, pages, params.since)
        for (page, own), before in zip(linking, earlier, strict=True):
            for link, name in own:
                target = _told(page, link) if name is None else targets[name]
                yield link_row(page, link, target, keys)
            for digest in sorted(before - {link.digest for link, _ in own}):
                yield no_link_row(page, digest, params.seen_ms)


def comment_rows(site: ConfluenceSite, params: CommentsSlice) -> Iterator[Row]:
    """Comments of one kind in a window of time."""
    keys = site.space_keys()
    spaces = {key.lower() for key in site.config.space_keys}

    def asked(comments: list[Json]) -> tuple[list[Json], dict[str, str]]:
        return comments, _spaces_of(site, comments)

    # the next list is asked for while the spaces of the ones before are
    for comments, space_of in read_ahead(asked, _new_comments(site, params)):
        for comment in comments:
            space_id = space_of.get(text(comment, "pageId") or "")
            if not spaces or keys.get(space_id or "", "").lower() in spaces:
                yield comment_row(comment, params.of, space_id, keys)


def label_rows(site: ConfluenceSite, params: LabelsSlice) -> Iterator[Row]:
    """The pages of some labels."""
    keys = site.space_keys()
    asked = params.spaces if len(params.spaces) <= MAX_SPACES_ASKED else ()
    pages_of = read_ahead(lambda label: _begun(site.labelled(label[0], asked)), params.labels)
    for label, lists in zip(params.labels, pages_of, strict=True):
        seen: set[str] = set()
        for listed in lists:
            for page in listed:
                page_id = str(page["id"])
                wanted = not params.spaces or page.get("spaceId") in params.spaces
                if wanted and page_id not in seen:
                    seen.add(page_id)
                    yield label_row(page, label, keys, params.seen_ms)


def _pages(site: ConfluenceSite, params: PagesSlice, *, body: bool) -> Iterator[Json]:
    for pages in site.pages_by_id(params.ids, body=body):
        yield from pages


def _begun(lists: Iterator[list[Json]]) -> Iterator[list[Json]]:
    """The same lists, the first of which is there; each of the others is asked for with the answer
    to the one before."""
    return chain(list(islice(lists, 1)), lists)


def _is_there(site: ConfluenceSite, page: Json) -> bool:
    return page.get("status") not in GONE and _is_wanted(site, page)


def _is_wanted(site: ConfluenceSite, page: Json) -> bool:
    """The page is in a space that is to be read."""
    if not site.config.space_keys:
        return True
    key = site.space_keys().get(text(page, "spaceId") or "", "")
    return key.lower() in {wanted.lower() for wanted in site.config.space_keys}


def _new_comments(site: ConfluenceSite, params: CommentsSlice) -> Iterator[list[Json]]:
    """The slice's comments in each list, once each, down to the list that leads out of it."""
    loaded = dict(params.loaded)
    seen: set[str] = set()
    for listed in site.comments(params.of, body=True):
        fresh = [c for c in listed if _is_inside(c, params, loaded) and str(c["id"]) not in seen]
        seen.update(str(comment["id"]) for comment in fresh)
        yield fresh
        if params.lower is not None and any(
            (changed_at(comment) or 0) < params.lower for comment in listed
        ):
            return


def _spaces_of(site: ConfluenceSite, comments: list[Json]) -> dict[str, str]:
    """The spaces of the pages that are commented on, by the page's id."""
    page_ids = sorted({str(c["pageId"]) for c in comments if c.get("pageId") is not None})
    return {
        str(page["id"]): str(page.get("spaceId"))
        for pages in site.pages_by_id(page_ids, body=False)
        for page in pages
    }


def _is_inside(comment: Json, params: CommentsSlice, loaded: dict[str, int]) -> bool:
    moment = changed_at(comment) or 0
    above = params.lower is None or moment >= params.lower
    return (
        above and moment <= params.upper and loaded.get(str(comment["id"])) != version_of(comment)
    )


def _surely_loaded(site: ConfluenceSite, since: int) -> int:
    """What was made at that time or earlier was visible when all up to `since` was loaded."""
    return since - int(site.config.overlap_s * MICROS)


def _new(site: ConfluenceSite, versions: Iterator[list[Json]], since: int | None) -> Iterator[Json]:
    """Of a page's versions, newest first, those down to the last one that was surely loaded."""
    loaded = None if since is None else _surely_loaded(site, since)
    seen: set[int] = set()
    for listed in versions:
        for revision in listed:
            number = int(revision.get("number") or 0)
            if loaded is not None and (instant(revision, "createdAt") or 0) <= loaded:
                return
            if number not in seen:
                seen.add(number)
                yield revision


def _own_links(site: ConfluenceSite, page: Json) -> list[Link]:
    """What a page links to; nothing if it is gone."""
    return links_of(text(page, "body", "storage", "value")) if _is_there(site, page) else []


def _earlier_links(
    site: ConfluenceSite, pages: list[Json], since: int | None
) -> Iterator[set[str]]:
    """For each page the links that were loaded before, and maybe more that it had since then."""
    if since is None:
        return (set() for _ in pages)
    return read_ahead(lambda page: _links_since(site, page, since), pages)


def _links_since(site: ConfluenceSite, page: Json, since: int) -> set[str]:
    """Links of a page's versions from now back to the one that was surely loaded before."""
    loaded = _surely_loaded(site, since)
    found: set[str] = set()
    for listed in site.versions(str(page["id"])):
        for revision in listed:
            body = text(revision, "page", "body", "storage", "value")
            found.update(link.digest for link in links_of(body))
            if (instant(revision, "createdAt") or 0) <= loaded:
                return found
    return found


def _targets(site: ConfluenceSite, names: Iterable[Name | None]) -> dict[Name, str | None]:
    """The ids of the pages that are linked to by name, each asked for once."""
    asked = dict.fromkeys(name for name in names if name is not None)
    ids = read_ahead(lambda name: site.page_by_title(*name), asked)
    return dict(zip(asked, ids, strict=True))


def _name(page: Json, link: Link, by_key: Mapping[str, str]) -> Name | None:
    """By what a link calls a page, if it tells no id; None if it leads to no page of another."""
    if link.page_id is not None or link.title is None or link.kind == "blog":
        return None
    own_space = text(page, "spaceId")
    space_id = own_space if link.space_key is None else by_key.get(link.space_key.lower())
    return None if space_id is None else (space_id, link.title)


def _told(page: Json, link: Link) -> str | None:
    """The id of the page that a link leads to, if nobody need be asked."""
    if link.page_id is not None or link.title is not None:
        return link.page_id
    # an attachment of the page's own, or a place on it
    own = link.kind == "attachment" or (link.kind == "page" and link.anchor is not None)
    return str(page["id"]) if own else None
