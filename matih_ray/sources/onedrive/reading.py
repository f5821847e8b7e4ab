"""Slices to rows."""

from __future__ import annotations

from collections.abc import Iterator

from matih_ray.errors import SourceChangedError, SourceError
from matih_ray.sources.declared import Row, text
from matih_ray.sources.onedrive.graph import Graph, Json
from matih_ray.sources.onedrive.rows import (
    ROOT,
    gone_row,
    is_deleted,
    is_folder,
    is_root,
    item_row,
    joined,
    name_of,
    parent_of,
)
from matih_ray.sources.onedrive.slices import FeedSlice, MissingSlice, SubtreeSlice
from matih_ray.sources.read_ahead import read_ahead

# Paths that were asked for are kept while a slice is read.
MAX_PATHS = 100_000


class Paths:
    """Paths of one drive's folders: those that are known, and of others what Graph says."""

    def __init__(self, graph: Graph, drive: str, known: dict[str, str]) -> None:
        self._graph, self._drive = graph, drive
        self._known: dict[str, str | None] = {
            folder: path or None for folder, path in known.items()
        }

    def of(self, item: Json) -> str | None:
        """An item's path; None if its folder is gone."""
        if is_deleted(item):
            return None
        if is_root(item):
            return ROOT
        parent = parent_of(item)
        return None if parent is None else joined(self.folder(parent), name_of(item))

    def folder(self, folder_id: str) -> str | None:
        """A folder's path."""
        if self._known.get(folder_id) is None:
            if len(self._known) >= MAX_PATHS:
                self._known.clear()
            item = self._graph.item(self._drive, folder_id)
            self._known[folder_id] = None if item is None else _told_path(item)
        return self._known[folder_id]


def feed_rows(graph: Graph, params: FeedSlice) -> Iterator[Row]:
    """Items of pages of a delta.

    Raises:
        SourceChangedError: A link has expired since it was planned.
    """
    paths = Paths(graph, params.drive, params.paths)
    for number, page in enumerate(read_ahead(graph.delta, params.links)):
        if page is None:
            raise SourceChangedError(
                f"drive {params.drive}: its delta has expired since it was planned; run again",
                drive=params.drive,
            )
        later = set(params.superseded.get(str(number), ()))
        # of several states on one page the last one is true
        latest = {str(item["id"]): item for item in page.items}
        for item_id, item in latest.items():
            if item_id not in later:
                yield item_row(params.drive, item, paths.of(item), params.seen_ms)


def subtree_rows(graph: Graph, params: SubtreeSlice) -> Iterator[Row]:
    """All that is below folders.

    Raises:
        SourceError: There is more than the limits allow.
    """
    paths = Paths(graph, params.drive, params.folders)
    waiting = [(folder, paths.folder(folder)) for folder in params.folders]
    pages = 0
    while waiting:
        folder, path = waiting.pop()
        for page in graph.children(params.drive, folder):
            pages += 1
            if pages > graph.config.limits.max_pages:
                raise SourceError(f"drive {params.drive}: more pages than limits.maxPages")
            for item in page:
                own = joined(path, name_of(item))
                if is_folder(item):
                    waiting.append((str(item["id"]), own))
                yield item_row(params.drive, item, own, params.seen_ms)


def missing_rows(graph: Graph, params: MissingSlice) -> Iterator[Row]:
    """Items that may be gone, each as it is."""
    paths = Paths(graph, params.drive, {})
    found = read_ahead(lambda id_: graph.item(params.drive, id_), params.items)
    for item_id, item in zip(params.items, found, strict=True):
        if item is None:
            yield gone_row(params.drive, item_id, params.seen_ms)
        else:
            yield item_row(params.drive, item, paths.of(item), params.seen_ms)


def _told_path(item: Json) -> str | None:
    """A folder's path from the one of its own folder, `/drives/<id>/root:/A/B`."""
    if is_root(item):
        return ROOT
    _, colon, above = (text(item, "parentReference", "path") or "").partition("root:")
    return joined(above or ROOT, name_of(item)) if colon else None
