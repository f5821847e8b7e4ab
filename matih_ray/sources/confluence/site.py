"""The calls of Confluence's REST API v2 that are needed, each with its way of paging.

`_links.next` is relative to a root that depends on how one logs in, so only its cursor is taken.
https://developer.atlassian.com/cloud/confluence/rest/v2/
"""

from __future__ import annotations

import datetime as dt
import email.utils
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from matih_ray.errors import DatabaseNotFoundError, SourceError
from matih_ray.sources.atlassian.connection import connect
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.confluence.config import MAX_PAGE_ROWS, ConfluenceConfig
from matih_ray.sources.declared import at
from matih_ray.sources.http.client import Answer, Request

Json = dict[str, Any]
Params = Mapping[str, str | int | bool]

LIVE = "current,archived"
ANY = "current,archived,trashed,deleted"
NEWEST = "-modified-date"
# Titles that were looked up are kept while a source is open.
MAX_TITLES = 20_000
_IDS = re.compile(r"(?<=/)\d+(?=/|$)")
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')


class ConfluenceSite:
    """A session. Opened on first use; usable again after `close`. `seen_ms` is the server's time at
    the last answer, milliseconds since 1970."""

    def __init__(self, spec: EndpointSpec, config: ConfluenceConfig) -> None:
        """Check credentials; nothing is connected yet.

        Raises:
            ValidationError: A secret is missing.
        """
        self.config = config
        self.seen_ms = 0
        self._root = f"{config.base_url.rstrip('/').removesuffix('/wiki')}/wiki/api/v2"
        self._client = connect(spec, config)
        self._keys: dict[str, str] | None = None
        self._titles: dict[tuple[str, str], str | None] = {}

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._client.close()
        self._keys = None
        self._titles.clear()

    def check(self) -> None:
        """Ask for one space, once."""
        self._get("spaces", {"limit": 1}, max_retries=0)

    def spaces(self) -> Iterator[list[Json]]:
        """Pages of the spaces that are to be read and can be seen."""
        params: dict[str, str | int | bool] = {"description-format": "plain"}
        if self.config.space_keys:
            params["keys"] = ",".join(self.config.space_keys)
        return self._pages("spaces", params)

    def space_keys(self) -> Mapping[str, str]:
        """The key of each space that can be seen, by id."""
        if self._keys is None:
            found = (space for page in self._pages("spaces", {}) for space in page)
            self._keys = {str(space["id"]): str(space["key"]) for space in found}
        return self._keys

    def space_pages(self, space_id: str, status: str, sort: str) -> Iterator[list[Json]]:
        """Pages of a space's pages, without bodies."""
        return self._pages(f"spaces/{space_id}/pages", {"status": status, "sort": sort})

    def pages_by_id(self, ids: Iterable[str], *, body: bool) -> Iterator[list[Json]]:
        """Those of these pages that can be seen, in the trash or not."""
        wanted = list(ids)
        for start in range(0, len(wanted), MAX_PAGE_ROWS):
            params: dict[str, str | int | bool] = {
                "id": ",".join(wanted[start : start + MAX_PAGE_ROWS]),
                "status": ANY,
            }
            if body:
                params["body-format"] = "storage"
            yield from self._pages("pages", params)

    def page_by_title(self, space_id: str, title: str) -> str | None:
        """The id of a space's page of that title. Several threads may ask at a time."""
        known = self._titles.get((space_id, title), ...)
        if known is not ...:
            return known
        params: Params = {"space-id": space_id, "title": title, "limit": 1}
        found = _results(self._get("pages", params))
        if len(self._titles) >= MAX_TITLES:
            self._titles.clear()
        page_id = self._titles[space_id, title] = str(found[0]["id"]) if found else None
        return page_id

    def versions(self, page_id: str) -> Iterator[list[Json]]:
        """Pages of a page's versions with their bodies, newest first; none if it is gone."""
        params: Params = {"body-format": "storage", "sort": NEWEST}
        try:
            yield from self._pages(f"pages/{page_id}/versions", params)
        except DatabaseNotFoundError:
            return

    def comments(self, kind: str, *, body: bool) -> Iterator[list[Json]]:
        """Pages of all `footer` or `inline` comments, newest first."""
        params: dict[str, str | int | bool] = {"sort": NEWEST}
        if body:
            params["body-format"] = "storage"
        return self._pages(f"{kind}-comments", params)

    def labels(self) -> Iterator[list[Json]]:
        """Pages of the labels of the site."""
        return self._pages("labels", {})

    def labelled(self, label_id: str, space_ids: Iterable[str]) -> Iterator[list[Json]]:
        """Pages of the pages with a label, in these spaces or, without any, in all."""
        named = ",".join(space_ids)
        return self._pages(f"labels/{label_id}/pages", {"space-id": named} if named else {})

    def _pages(self, path: str, params: Params) -> Iterator[list[Json]]:
        asked: dict[str, str | int | bool] = {"limit": self.config.page_size, **params}
        seen: set[str] = set()
        while True:
            answer = self._get(path, asked)
            yield _results(answer)
            cursor = _next_cursor(answer)
            if cursor is None:
                return
            if cursor in seen:
                raise SourceError(f"{path}: the cursors lead in a circle; nothing more can be read")
            seen.add(cursor)
            if len(seen) > self.config.limits.max_pages:
                raise SourceError(f"{path}: more pages than limits.maxPages; raise it")
            asked["cursor"] = cursor

    def _get(self, path: str, params: Params, *, max_retries: int | None = None) -> Answer:
        request = Request(f"{self._root}/{path}", params, call=f"GET {_IDS.sub('*', path)}")
        answer = self._client.fetch(request, max_retries=max_retries)
        self.seen_ms = _seen_ms(answer)
        return answer


def _results(answer: Answer) -> list[Json]:
    found = at(answer.body, "results")
    if not isinstance(found, list):
        raise SourceError("an answer of Confluence has no list `results`; check baseUrl")
    return found


def _next_cursor(answer: Answer) -> str | None:
    """The cursor of the next page, from the body or else from the header `Link`."""
    link = at(answer.body, "_links", "next")
    if not isinstance(link, str):
        match = _NEXT.search(answer.headers.get("Link", ""))
        link = None if match is None else match.group(1)
    if link is None:
        return None
    cursor = parse_qs(urlsplit(link).query).get("cursor")
    if not cursor:
        raise SourceError("a link to the next page has no cursor; check baseUrl")
    return str(cursor[0])


def _seen_ms(answer: Answer) -> int:
    """The server's time, whose clock made the times of versions."""
    try:
        moment = email.utils.parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError, TypeError):
        moment = dt.datetime.now(dt.timezone.utc)
    return int(moment.timestamp() * 1000)
