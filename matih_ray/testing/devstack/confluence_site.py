"""A site of Confluence Cloud, our own: REST API v2 with its paging, statuses and refusals.

After the vendor's OpenAPI description of version 2.0.0, which a test compares its answers with. Its
cursors are positions in lists that shift when pages are edited or removed, the worst that a client
can meet; how the vendor's work inside is not told.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response

from matih_ray.testing.devstack.faked_site import FakedSite, as_json, iso

USER = "reader@shop.example"
TOKEN = "a-secret-nobody-may-see"  # noqa: S105 opens nothing else
MAX_LIMIT = 250
AUTHOR = "5b10ac8d82e05b22cc7d4ef5"
Json = dict[str, Any]


@dataclass
class FakedVersion:
    """One version of a page or comment."""

    number: int
    at: dt.datetime
    title: str
    body: str


@dataclass
class FakedPage:
    """A page with all its versions, the newest one last."""

    id: str
    space: str
    parent: str | None
    created: dt.datetime
    versions: list[FakedVersion]
    status: str = "current"
    labels: set[str] = field(default_factory=set)

    @property
    def last(self) -> FakedVersion:
        """The version that is true."""
        return self.versions[-1]


@dataclass
class FakedComment:
    """A comment on a page."""

    id: str
    kind: str
    page: str
    versions: list[FakedVersion]


class ConfluenceSite(FakedSite):
    """The server, with the space `1` of the key `SHOP`.

    Faults: `forbidden` are ids of spaces that are listed and answer 403, `hidden` such that are not
    seen at all; with `circles` every cursor leads to itself; `link_header_only` leaves
    `_links.next` out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spaces: dict[str, tuple[str, str]] = {}
        self.pages: dict[str, FakedPage] = {}
        self.comments: dict[str, FakedComment] = {}
        self.labels: dict[str, str] = {}
        self.forbidden: set[str] = set()
        self.hidden: set[str] = set()
        self.circles = False
        self.link_header_only = False
        self.add_space("1", "SHOP", "The shop")

    def add_space(self, space_id: str, key: str, name: str) -> None:
        """A space."""
        self.spaces[space_id] = (key, name)

    def put(
        self, page_id: str, title: str, body: str = "", space: str = "1", parent: str | None = None
    ) -> None:
        """A new page, or a new version of one."""
        page = self.pages.get(page_id)
        if page is None:
            page = self.pages[page_id] = FakedPage(page_id, space, parent, self.now, [])
        number = len(page.versions) + 1
        page.versions.append(FakedVersion(number, self.now, title, body))

    def comment(self, comment_id: str, page: str, body: str, kind: str = "footer") -> None:
        """A new comment, or a new version of one."""
        known = self.comments.setdefault(comment_id, FakedComment(comment_id, kind, page, []))
        known.versions.append(FakedVersion(len(known.versions) + 1, self.now, "", body))

    def label(self, page: str, name: str) -> None:
        """Put a label on a page; its version stays."""
        label_id = next((i for i, n in self.labels.items() if n == name), None)
        if label_id is None:
            label_id = str(9000 + len(self.labels))
            self.labels[label_id] = name
        self.pages[page].labels.add(label_id)

    def trash(self, page_id: str) -> None:
        """Put a page into the trash; its version stays."""
        self.pages[page_id].status = "trashed"

    def restore(self, page_id: str) -> None:
        """Take a page out of the trash; its version stays."""
        self.pages[page_id].status = "current"

    def purge(self, page_id: str) -> None:
        """Remove a page without a trace."""
        del self.pages[page_id]

    def move(self, page_id: str, space: str) -> None:
        """Move a page to another space; its version stays."""
        self.pages[page_id].space = space

    def place_below(self, page_id: str, parent: str | None) -> None:
        """Move a page below another one of its space; its version stays."""
        self.pages[page_id].parent = parent

    def truth(self, space: str | None = None) -> dict[str, tuple[str, int, str]]:
        """Space, version and title of each page that is there."""
        return {
            page.id: (page.space, page.last.number, page.last.title)
            for page in self.pages.values()
            if page.status == "current" and space in (None, page.space)
        }

    def refusal(self, request: Request) -> Response | None:
        """See `FakedSite`."""
        told = base64.b64encode(f"{USER}:{TOKEN}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {told}":
            return _error(401, "UNAUTHORIZED", "Unauthorized; scope does not match")
        parts = request.url.path.split("/")
        if "spaces" in parts[:-1]:
            space = parts[parts.index("spaces") + 1]
            if space in self.forbidden:
                return _error(403, "FORBIDDEN", "Current user not permitted to use Confluence")
            if space in self.hidden or space not in self.spaces:
                return _error(404, "NOT_FOUND", "Space not found")
        limit = request.query_params.get("limit", "25")
        if not limit.isdigit() or not 1 <= int(limit) <= MAX_LIMIT:
            return _error(400, "INVALID_REQUEST_PARAMETER", "Provided value for 'limit' is invalid")
        if len(_list(request, "id")) > MAX_LIMIT:
            return _error(400, "INVALID_REQUEST_PARAMETER", "Provided value for 'id' is invalid")
        return None

    def add_routes(self, app: FastAPI) -> None:
        """See `FakedSite`."""

        @app.get("/wiki/api/v2/spaces")
        def spaces(request: Request) -> Response:
            keys = {key.upper() for key in _list(request, "keys")}
            found = [
                self._space_json(i, key, name)
                for i, (key, name) in sorted(self.spaces.items())
                if i not in self.hidden and (not keys or key.upper() in keys)
            ]
            return self._page(request, found, lambda space: space)

        @app.get("/wiki/api/v2/pages")
        def pages(request: Request) -> Response:
            return self._pages(request, self.pages.values())

        @app.get("/wiki/api/v2/spaces/{space}/pages")
        def space_pages(space: str, request: Request) -> Response:
            return self._pages(request, (p for p in self.pages.values() if p.space == space))

        self._add_parts_of_pages(app)

    def _add_parts_of_pages(self, app: FastAPI) -> None:
        @app.get("/wiki/api/v2/pages/{page}/versions")
        def versions(page: str, request: Request) -> Response:
            found = self.pages.get(page)
            if found is None or not self._is_visible(found):
                return _error(404, "NOT_FOUND", "Page not found")
            listed = sorted(found.versions, key=lambda v: v.number)
            if request.query_params.get("sort") == "-modified-date":
                listed.reverse()
            return self._page(request, listed, lambda v: self._version_json(found, v, request))

        @app.get("/wiki/api/v2/{kind}-comments")
        def comments(kind: str, request: Request) -> Response:
            found = [
                c
                for c in self.comments.values()
                if c.kind == kind and c.page in self.pages and self._is_visible(self.pages[c.page])
            ]
            if request.query_params.get("sort") == "-modified-date":
                found.sort(key=lambda c: (c.versions[-1].at, int(c.id)), reverse=True)
            return self._page(request, found, lambda c: self._comment_json(c, request))

        @app.get("/wiki/api/v2/labels")
        def labels(request: Request) -> Response:
            found = sorted(self.labels.items())
            return self._page(
                request, found, lambda pair: {"id": pair[0], "name": pair[1], "prefix": "global"}
            )

        @app.get("/wiki/api/v2/labels/{label}/pages")
        def labelled(label: str, request: Request) -> Response:
            return self._pages(request, (p for p in self.pages.values() if label in p.labels))

    def _is_visible(self, page: FakedPage) -> bool:
        return page.space not in self.hidden | self.forbidden

    def _pages(self, request: Request, pages: Iterable[FakedPage]) -> Response:
        query = request.query_params
        ids, spaces = set(_list(request, "id")), set(_list(request, "space-id"))
        statuses = set(_list(request, "status")) or {"current", "archived"}
        found = [
            page
            for page in pages
            if page.status in statuses
            and self._is_visible(page)
            and (not ids or page.id in ids)
            and (not spaces or page.space in spaces)
            and query.get("title", page.last.title) == page.last.title
        ]
        found.sort(key=lambda page: int(page.id))
        if query.get("sort") == "-modified-date":
            found.sort(key=lambda page: page.last.at, reverse=True)
        return self._page(request, found, lambda page: self._page_json(page, request))

    def _page(self, request: Request, found: list[Any], told: Callable[[Any], Json]) -> Response:
        limit = int(request.query_params.get("limit", 25))
        cursor = request.query_params.get("cursor")
        start = 0 if cursor is None else json.loads(base64.urlsafe_b64decode(cursor))["at"]
        body: Json = {
            "results": [told(each) for each in found[start : start + limit]],
            "_links": {"base": f"{self.url}/wiki"},
        }
        headers = {}
        if start + limit < len(found):
            following = start if self.circles else start + limit
            token = base64.urlsafe_b64encode(json.dumps({"at": following}).encode()).decode()
            link = f"{request.url.path}?{request.url.include_query_params(cursor=token).query}"
            headers["Link"] = f'<{link}>; rel="next", <{self.url}/wiki>; rel="base"'
            if not self.link_header_only:
                body["_links"]["next"] = link
        return as_json(body, headers=headers)

    def _space_json(self, space_id: str, key: str, name: str) -> Json:
        return {
            "id": space_id,
            "key": key,
            "name": name,
            "type": "global",
            "status": "current",
            "authorId": AUTHOR,
            "createdAt": iso(self.created),
            "homepageId": "100",
            "description": {"plain": {"representation": "plain", "value": f"About {name}"}},
            "_links": {"webui": f"/spaces/{key}"},
        }

    def _page_json(self, page: FakedPage, request: Request) -> Json:
        told: Json = {
            "id": page.id,
            "status": page.status,
            "title": page.last.title,
            "spaceId": page.space,
            "parentId": page.parent,
            "position": 557,
            "authorId": AUTHOR,
            "ownerId": AUTHOR,
            "lastOwnerId": None,
            "createdAt": iso(page.created),
            "version": _version(page.last),
            "body": _body(page.last, request),
            "_links": {"webui": f"/spaces/x/pages/{page.id}", "tinyui": "/x/AbC"},
        }
        if page.parent is not None:
            told["parentType"] = "page"
        return told

    def _version_json(self, page: FakedPage, version: FakedVersion, request: Request) -> Json:
        entity = {"id": page.id, "title": version.title, "body": _body(version, request)}
        return {**_version(version), "page": entity}

    def _comment_json(self, comment: FakedComment, request: Request) -> Json:
        last = comment.versions[-1]
        told: Json = {
            "id": comment.id,
            "status": "current",
            "title": f"Re: {self.pages[comment.page].last.title}",
            "pageId": comment.page,
            "version": _version(last),
            "body": _body(last, request),
            "_links": {"webui": f"/spaces/x/pages/{comment.page}?focusedCommentId={comment.id}"},
        }
        if comment.kind == "inline":
            told["resolutionStatus"] = "open"
            told["properties"] = {"inlineOriginalSelection": "these words"}
        return told


def _version(version: FakedVersion) -> Json:
    return {
        "number": version.number,
        "createdAt": iso(version.at),
        "message": "",
        "minorEdit": False,
        "authorId": AUTHOR,
    }


def _body(version: FakedVersion, request: Request) -> Json:
    if request.query_params.get("body-format") != "storage":
        return {}
    return {"storage": {"representation": "storage", "value": version.body}}


def _list(request: Request, name: str) -> list[str]:
    """A parameter's values, separated by commas or repeated."""
    told = request.query_params.getlist(name)
    return [value for one in told for value in one.split(",") if value]


def _error(status: int, code: str, title: str) -> Response:
    told = {"status": status, "code": code, "title": title, "detail": None}
    return as_json({"errors": [told]}, status)
