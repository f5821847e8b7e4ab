"""A drive's delta, gone through once to plan: where its pages are and what they change.

Planning reads the whole delta and keeps ids only. That is twice the requests of a single pass, and
buys what a single pass cannot have: slices that can be read again one by one, the delta link before
anything is loaded, the last of several states of an item, and paths.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from matih_ray.errors import SourceChangedError
from matih_ray.sources.onedrive.graph import Graph, Json, Loops, Page
from matih_ray.sources.onedrive.inventory import MAX_KNOWN_ITEMS, Known, Tree
from matih_ray.sources.onedrive.rows import is_deleted, is_folder, name_of, parent_of


@dataclass
class FeedPage:
    """One page: how to ask for it, how much it holds, and the folders that hold its items."""

    link: str
    rows: int
    folders: set[str]
    superseded: list[str] = field(default_factory=list)


@dataclass
class Feed:
    """One drive's delta. `is_whole` is a full enumeration, `expired` one because of an old link.

    `before` and `after` are the drive's trees; None is not known.
    """

    drive: str
    seen_ms: int
    before: Tree | None
    after: Tree | None
    is_whole: bool = False
    expired: bool = False
    pages: list[FeedPage] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    delta_link: str = ""

    @property
    def rows(self) -> int:
        """Rows of all pages."""
        return sum(page.rows for page in self.pages)

    def moved_folders(self) -> list[str]:
        """Folders whose path has changed while their items were not told of; the topmost ones."""
        if self.is_whole or self.before is None or self.after is None:
            return []
        moved = {
            item_id
            for item_id in self.changed
            if (now := self.after.items.get(item_id)) is not None
            and now.folder_name is not None
            and self.before.items.get(item_id, now) != now
        }
        return sorted(folder for folder in moved if not _has_parent_in(self.after, folder, moved))

    def missing(self) -> list[str]:
        """Items that were there and of which neither life nor death was told."""
        if self.before is None:
            return []
        told = self.changed | self.deleted
        if self.is_whole:
            return sorted(self.before.items.keys() - told)
        return sorted(set(self.before.below(self.deleted)) - told)


def read_feed(graph: Graph, drive_id: str, link: str | None, tree: Tree | None) -> Feed:
    """Go through a drive's delta from a link, or through all of the drive.

    Raises:
        SourceError: A page could not be read, or the links lead in a circle.
    """
    page = None if link is None else graph.delta(link)
    if page is not None:
        after = None if tree is None else tree.copy()
        feed = Feed(drive_id, page.seen_ms, before=tree, after=after)
        if _go_through(graph, feed, page):
            return feed
    page = graph.first_delta(drive_id)
    feed = Feed(drive_id, page.seen_ms, tree, Tree(), is_whole=True, expired=link is not None)
    if _go_through(graph, feed, page):
        return feed
    raise SourceChangedError(
        f"drive {drive_id}: Graph lost its place in a full enumeration; run again", drive=drive_id
    )


def _go_through(graph: Graph, feed: Feed, first: Page) -> bool:
    """Note all pages from the first one on; False if a link is not known any more."""
    last: dict[str, FeedPage] = {}
    loops = Loops()
    page: Page | None = first
    while page is not None:
        _note(feed, page, last)
        if page.next_link is None:
            feed.delta_link = page.delta_link or ""
            _forget(feed)
            return True
        loops.check(page.next_link, graph.config.limits.max_pages)
        page = graph.delta(page.next_link)
    return False


def _forget(feed: Feed) -> None:
    if feed.after is not None:
        for item_id in feed.missing():
            feed.after.items.pop(item_id, None)


def _note(feed: Feed, page: Page, last: dict[str, FeedPage]) -> None:
    noted = FeedPage(page.url, len(page.items), set())
    for item in page.items:
        item_id = str(item["id"])
        earlier = last.get(item_id)
        if earlier is not None and earlier is not noted:
            earlier.superseded.append(item_id)
        if len(last) < MAX_KNOWN_ITEMS:
            last[item_id] = noted
        else:
            feed.after = None  # too much to be remembered
        _apply(feed, item, item_id)
        if not is_deleted(item) and (parent := parent_of(item)) is not None:
            noted.folders.add(parent)
    if page.items:
        feed.pages.append(noted)


def _apply(feed: Feed, item: Json, item_id: str) -> None:
    gone = is_deleted(item)
    (feed.deleted if gone else feed.changed).add(item_id)
    (feed.changed if gone else feed.deleted).discard(item_id)
    if feed.after is None:
        return
    if gone:
        feed.after.items.pop(item_id, None)
    else:
        name = name_of(item) if is_folder(item) else None
        feed.after.items[item_id] = Known(parent_of(item), name)


def _has_parent_in(tree: Tree, folder: str, others: set[str]) -> bool:
    current, seen = tree.items[folder].parent, {folder}
    while current is not None and current not in seen:
        if current in others:
            return True
        seen.add(current)
        known = tree.items.get(current)
        current = None if known is None else known.parent
    return False
