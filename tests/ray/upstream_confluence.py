"""A Confluence site with three spaces, what people do to it, and what the tables must then hold."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator

from starlette.requests import Request

from matih_ray.model.ids import EndpointId
from matih_ray.model.value import JsonValue
from matih_ray.sources.confluence.storage import Link
from matih_ray.testing.devstack.confluence_site import (
    AUTHOR,
    TOKEN,
    USER,
    ConfluenceSite,
    FakedPage,
)
from tests.ray.cdm_lab import Row, Truth, reference

PAGE = 50
EDITS = 6
SPACES = {"1": "SHOP", "2": "SITE", "3": "PRIV"}
# What a page links to: titles of its own space, and addresses.
Targets = tuple[str, ...]


class ConfluenceUpstream:
    """SHOP and SITE are selected, PRIV is not."""

    type = "CONFLUENCE"
    family = "http.confluence"
    units = {
        "confluence.links": "cdm.doc.link",
        "confluence.pages": "cdm.doc.item",
        "confluence.revisions": "cdm.doc.revision",
        "confluence.spaces": "cdm.doc.space",
    }
    secrets = {"apiToken": TOKEN}
    filter: dict[str, JsonValue] | None = None

    def __init__(self, site: ConfluenceSite, clock_h: float) -> None:
        self.site = site
        now = dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=clock_h)
        site.now = now.replace(microsecond=0)
        for space_id, key in list(SPACES.items())[1:]:
            site.add_space(space_id, key, f"Space {key}")
        self._targets: dict[tuple[str, int], Targets] = {}
        self._departed: set[str] = set()

    @property
    def config(self) -> dict[str, JsonValue]:
        return {
            "baseUrl": self.site.url,
            "user": USER,
            "spaceKeys": ["SHOP", "SITE"],
            "pageSize": PAGE,
            "pagesPerSlice": 100,
            "limits": {"retryBackoffS": 0.01},
        }

    def fill(self, size: int) -> None:
        """So many pages in SHOP below one another, and some elsewhere."""
        for n in range(size):
            parent = str(100 + n // 10) if n else None
            self._put(100 + n, f"Page {n}", "Page 90", f"https://shop.example/{n}", parent=parent)
            if n % 10 == 0:
                self.site.tick()
        for n in range(30):
            self._put(5000 + n, f"Site {n}", "Site 20", "Site 20", space="2")
        for n in range(3):
            self._put(9000 + n, f"Private {n}", space="3")
        self._put(101, "Page 1", "Page 91", "Page 92")
        self._put(101, "Page 1", "Page 92", "Page 93")
        self.site.trash("105")
        self.site.tick(hours=1)

    def change(self) -> None:
        """Change, move and delete."""
        site = self.site
        self._put(101, "Page 1", "Page 93", "https://new.example/")
        self._put(102, "Another name", "Page 90")
        site.tick()
        site.move("103", "2")
        site.move("104", "3")
        site.move("9000", "1")
        site.restore("105")
        site.place_below("109", "102")
        site.trash("106")
        site.purge("107")
        site.tick()
        self._put(800, "New page", "Page 90", parent="101")
        # what belonged to it stays, since nobody can be asked any more what that was
        self._departed = {"107"}
        site.tick(hours=1)

    def storm(self) -> None:
        """Refuse many calls."""
        self.site.storm = 60

    def edit_while_paging(self, *, on: bool) -> None:
        """Edit what was on a page whenever the next one is asked for."""
        waiting = list(range(110, 110 + EDITS))

        def edit(request: Request) -> None:
            if waiting and request.url.path.endswith("/pages") and "cursor" in request.query_params:
                n = waiting.pop()
                self.site.tick()
                self._put(n, f"Page {n - 100}", "Page 94")

        self.site.before = edit if on else lambda _request: None
        self.site.tick(hours=1)

    def departed(self, endpoint_id: EndpointId) -> frozenset[str]:
        """Pages that left; what belongs to them stays."""
        ids = (reference("cdm.doc.item", endpoint_id, id_) for id_ in self._departed)
        return frozenset(str(id_) for id_ in ids)

    def truth(self, endpoint_id: EndpointId) -> Truth:
        """See `Upstream`."""

        def refer(kind: str, source_id: object) -> str | None:
            return reference(f"cdm.doc.{kind}", endpoint_id, source_id)

        pages = [p for p in self.site.pages.values() if p.status == "current" and p.space != "3"]
        titles = {(p.space, p.last.title): p.id for p in pages}
        links = {}
        for page in pages:
            for link, count in self._links(page):
                target = titles.get((page.space, link.title or ""))
                links[f"{page.id}:{link.digest}"] = {
                    "source_version": page.last.number,
                    "from_item_cdm_id": refer("item", page.id),
                    "to_item_cdm_id": refer("item", target),
                    "to_url": link.url,
                    "to_space_key": SPACES[page.space] if link.title else None,
                    "to_title": link.title,
                    "link_type": link.kind,
                    "text": link.text,
                    "occurrences": count,
                }
        return {
            "cdm.doc.space": {
                i: self._space(i) for i in SPACES if SPACES[i] in ("SHOP", "SITE")
            },
            "cdm.doc.item": {
                p.id: {
                    "source_version": p.last.number,
                    "space_cdm_id": refer("space", p.space),
                    "parent_item_cdm_id": refer("item", p.parent),
                    "title": p.last.title,
                    "item_type": "page",
                    "status": "current",
                    "version": str(p.last.number),
                    "author_id": AUTHOR,
                    "editor_id": AUTHOR,
                    "body": p.last.body,
                    "created_at": p.created,
                    "updated_at": p.last.at,
                    "url": f"/spaces/x/pages/{p.id}",
                }
                for p in pages
            },
            "cdm.doc.revision": {
                f"{p.id}:{version.number}": {
                    "source_version": round(version.at.timestamp() * 1000),
                    "item_cdm_id": refer("item", p.id),
                    "version": str(version.number),
                    "title": version.title,
                    "author_id": AUTHOR,
                    "message": "",
                    "is_minor": False,
                    "body": version.body,
                    "created_at": version.at,
                }
                for p in pages
                for version in p.versions
            },
            "cdm.doc.link": links,
        }  # fmt: skip

    def _space(self, space_id: str) -> Row:
        key, name = self.site.spaces[space_id]
        return {
            "space_key": key,
            "name": name,
            "description": f"About {name}",
            "space_type": "global",
            "status": "current",
            "owner_id": AUTHOR,
            "created_at": self.site.created,
            "url": f"/spaces/{key}",
        }

    def _put(
        self,
        page_id: int,
        title: str,
        *targets: str,
        space: str = "1",
        parent: str | None = None,
    ) -> None:
        body = "<p>" + " and ".join(map(_written, targets)) + "</p>"
        self.site.put(str(page_id), title, body, space, parent)
        page = self.site.pages[str(page_id)]
        self._targets[page.id, page.last.number] = targets

    def _links(self, page: FakedPage) -> Iterator[tuple[Link, int]]:
        for target, count in Counter(self._targets[page.id, page.last.number]).items():
            if target.startswith("https:"):
                yield Link("url", url=target, text="there"), count
            else:
                yield Link("page", title=target), count


def _written(target: str) -> str:
    if target.startswith("https:"):
        return f'<a href="{target}">there</a>'
    return f'<ac:link><ri:page ri:content-title="{target}"/></ac:link>'
