"""The calls of Microsoft Graph that are needed, each with its way of paging.

Links are opaque and followed as they came; `$top` is told on the first call only.
https://learn.microsoft.com/graph/api/driveitem-delta
"""

from __future__ import annotations

import datetime as dt
import email.utils
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlsplit

from matih_ray.errors import DatabaseNotFoundError, SourceError
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.declared import at
from matih_ray.sources.http.client import Answer, ApiClient, Request, Server
from matih_ray.sources.http.config import Auth
from matih_ray.sources.onedrive.config import OneDriveConfig

Json = dict[str, Any]
# How Graph says that a token of its own is too old, or not known any more.
_EXPIRED_STATUSES = frozenset({400, 404, 410})
# Graph asks for a name by which it can tell whose traffic this is.
_USER_AGENT = "NONISV|MATIH|MatihRay/0.1"


@dataclass(frozen=True)
class Page:
    """One answer of a delta: its items, and the link to the next page or to the next delta."""

    url: str
    items: list[Json]
    next_link: str | None
    delta_link: str | None
    seen_ms: int


class Graph:
    """A session. Opened on first use; usable again after `close`. `seen_ms` is the server's time at
    the last answer, milliseconds since 1970."""

    def __init__(self, spec: EndpointSpec, config: OneDriveConfig) -> None:
        """Check credentials; nothing is connected yet.

        Raises:
            ValidationError: The secret is missing.
        """
        self.config = config
        self.seen_ms = 0
        self._base = config.graph_url.rstrip("/")
        host = self._base.split("/v1.0")[0]
        server = Server(
            url=self._base,
            headers={"User-Agent": _USER_AGENT},
            auth=Auth(kind="oauth2", client_id=config.client_id, scope=f"{host}/.default"),
            auth_url=f"{config.login_url.rstrip('/')}/{config.directory_id}/oauth2/v2.0/token",
            ssl_root_cert=config.ssl_root_cert,
            limits=config.limits,
            host_policy=spec.host_policy,
            governor=spec.services.governor,
        )
        secret = {"clientSecret": spec.secrets.get("clientSecret", "")}
        self._client = ApiClient(server, secret)

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        self._client.close()

    def drive(self, drive_id: str) -> Json:
        """One drive."""
        return _object(self._get(f"drives/{_part(drive_id)}"))

    def drives_of(self, kind: str, owner: str) -> list[Json]:
        """The drives of one of `users`, `groups`, `sites`."""
        first = f"{self._base}/{kind}/{_part(owner)}/drives"
        return [drive for page in self._pages(first, {}) for drive in page]

    def first_delta(self, drive_id: str) -> Page:
        """The first page of all items of a drive."""
        url = f"{self._base}/drives/{_part(drive_id)}/root/delta"
        answer = self._fetch(Request(url, {"$top": self.config.page_size}))
        return _page(answer.url, answer)

    def delta(self, link: str) -> Page | None:
        """The page at a link; None if Graph does not know the link any more."""
        try:
            return _page(link, self._fetch(Request(link, {})))
        except SourceError as error:
            if error.context.get("status") in _EXPIRED_STATUSES:
                return None
            raise

    def item(self, drive_id: str, item_id: str) -> Json | None:
        """One item; None if there is none."""
        try:
            return _object(self._get(f"drives/{_part(drive_id)}/items/{_part(item_id)}"))
        except DatabaseNotFoundError:
            return None

    def children(self, drive_id: str, item_id: str) -> Iterator[list[Json]]:
        """Pages of what is in a folder; none if it is gone."""
        path = f"drives/{_part(drive_id)}/items/{_part(item_id)}/children"
        try:
            yield from self._pages(f"{self._base}/{path}", {"$top": self.config.page_size})
        except DatabaseNotFoundError:
            return

    def _get(self, path: str) -> Answer:
        return self._fetch(Request(f"{self._base}/{path}", {}))

    def _fetch(self, request: Request) -> Answer:
        answer = self._client.fetch(replace(request, call=_call(request.url)))
        self.seen_ms = _seen_ms(answer)
        return answer

    def _pages(self, first: str, params: dict[str, str | int | bool]) -> Iterator[list[Json]]:
        url, asked, seen = first, params, Loops()
        while True:
            answer = self._fetch(Request(url, asked))
            yield _listed(answer)
            following = at(answer.body, "@odata.nextLink")
            if following is None:
                return
            seen.check(following, self.config.limits.max_pages)
            url, asked = following, {}


class Loops:
    """Finds out that links lead in circles, or on for ever."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def check(self, link: str, limit: int) -> None:
        """Remember a link.

        Raises:
            SourceError: It was there before, or there are too many.
        """
        # links are long and there may be many
        digest = hashlib.blake2b(link.encode(), digest_size=12).digest()
        if digest in self._seen:
            raise SourceError("Graph's links lead in a circle; nothing more can be read")
        self._seen.add(digest)
        if len(self._seen) > limit:
            raise SourceError(f"more than limits.maxPages ({limit}) pages; raise it", limit=limit)


def _page(url: str, answer: Answer) -> Page:
    next_link, delta_link = at(answer.body, "@odata.nextLink"), at(answer.body, "@odata.deltaLink")
    if (next_link is None) == (delta_link is None):
        raise SourceError("an answer of Graph's delta must have one link, to go on or to come back")
    return Page(url, _listed(answer), next_link, delta_link, _seen_ms(answer))


def _listed(answer: Answer) -> list[Json]:
    found = at(answer.body, "value")
    if not isinstance(found, list):
        raise SourceError("an answer of Graph has no list `value`; check graphUrl")
    return found


def _object(answer: Answer) -> Json:
    if not isinstance(answer.body, dict):
        raise SourceError("an answer of Graph is no object; check graphUrl")
    return answer.body


def _seen_ms(answer: Answer) -> int:
    """The server's time, whose clock made the times of items."""
    try:
        moment = email.utils.parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError, TypeError):
        moment = dt.datetime.now(dt.timezone.utc)
    return int(moment.timestamp() * 1000)


def _call(url: str) -> str:
    """The kind of a call for rate governors: its path without ids."""
    path = urlsplit(url).path
    ends = ("delta", "children", "drives")
    found = next((end for end in ends if path.endswith(f"/{end}")), None)
    return f"GET {found or ('item' if '/items/' in path else 'drive')}"


def _part(name: str) -> str:
    return quote(name, safe="!,$'()*+:;=@~-._")
