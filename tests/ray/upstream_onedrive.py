"""Two drives, what people do to them, and what the tables must then hold."""

from __future__ import annotations

import base64
import datetime as dt

from starlette.requests import Request

from matih_ray.model.ids import EndpointId
from matih_ray.model.value import JsonValue
from matih_ray.testing.devstack.graph_drives import (
    CLIENT_ID,
    DIRECTORY,
    DRIVE,
    ROOT,
    SECRET,
    FakedItem,
    GraphDrives,
)
from tests.ray.cdm_lab import Row, Truth, reference

PAGE = 50
EDITS = 6
OTHER = "b!other"


class OneDriveUpstream:
    """The drives of the shop and of another team."""

    type = "ONEDRIVE"
    family = "http.onedrive"
    units = {"onedrive.drives": "cdm.doc.space", "onedrive.items": "cdm.doc.item"}
    secrets = {"clientSecret": SECRET}
    filter: dict[str, JsonValue] | None = None

    def __init__(self, graph: GraphDrives, clock_h: float) -> None:
        self.graph = graph
        now = dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=clock_h)
        graph.now = now.replace(microsecond=0)
        graph.add_drive(OTHER, owner="team", root="R2")

    @property
    def config(self) -> dict[str, JsonValue]:
        return {
            "directoryId": DIRECTORY,
            "clientId": CLIENT_ID,
            "graphUrl": f"{self.graph.url}/v1.0",
            "loginUrl": self.graph.url,
            "drives": [DRIVE, OTHER],
            "pageSize": PAGE,
            "limits": {"retryBackoffS": 0.01},
        }

    def fill(self, size: int) -> None:
        """So many files in folders in folders, and some in another drive."""
        put = self.graph.put
        put("A", "Plans", is_folder=True)
        put("B", "2026", "A", is_folder=True)
        put("C", "Old", is_folder=True)
        put("D", "Deeper", "C", is_folder=True)
        for n in range(size):
            put(f"f{n}", f"file {n}.txt", ("B", "C", "D", "A")[n % 4], size=n)
            if n % 10 == 0:
                self.graph.tick()
        put("g", "of the team.txt", "R2", drive=OTHER)
        self.graph.tick(hours=1)

    def change(self) -> None:
        """Change, move and delete."""
        graph = self.graph
        graph.put("f0", "file 0.txt", "B", size=77)
        graph.move("f1", parent="A", name="moved.txt")
        graph.move("A", name="Renamed plans")
        graph.delete("f4")
        graph.tick()
        graph.delete("C", with_content=False)
        graph.put("n", "new.txt", "B")
        graph.put("T", "temporary", is_folder=True)
        graph.put("t", "in there.txt", "T")
        graph.move("t", parent=ROOT)
        graph.delete("T")
        graph.tick()
        graph.put("g2", "second.txt", "R2", drive=OTHER)
        graph.purge_quietly("g", OTHER)
        graph.expire(OTHER)
        graph.tick(hours=1)

    def storm(self) -> None:
        """Refuse many calls."""
        self.graph.storm = 60

    def edit_while_paging(self, *, on: bool) -> None:
        """Change what was told already whenever the next page of a delta is asked for."""
        waiting = list(range(EDITS))

        def edit(request: Request) -> None:
            if waiting and request.url.path.endswith("/delta") and "token" in request.query_params:
                n = 4 * waiting.pop() + 3
                self.graph.tick()
                self.graph.move(f"f{n}", name=f"edited {n}.txt")

        self.graph.before = edit if on else lambda _request: None
        self.graph.tick(hours=1)

    def departed(self, endpoint_id: EndpointId) -> frozenset[str]:
        """Nothing: items have no parts."""
        del endpoint_id
        return frozenset()

    def truth(self, endpoint_id: EndpointId) -> Truth:
        """See `Upstream`."""
        items: dict[str, Row] = {}
        for drive in self.graph.drives.values():
            paths = self.graph.truth(drive.id)
            for item in drive.items.values():
                if not item.deleted:
                    row = self._item(endpoint_id, drive.id, item)
                    items[f"{drive.id}:{item.id}"] = {**row, "path": paths[item.id]}
        drives = {d.id: self._drive(d.id, d.owner) for d in self.graph.drives.values()}
        return {"cdm.doc.space": drives, "cdm.doc.item": items}

    def _drive(self, drive_id: str, owner: str) -> Row:
        return {
            "name": "OneDrive",
            "space_type": "business",
            "owner_id": "u-1",
            "created_at": self.graph.created,
            "url": f"https://contoso.example/personal/{owner}",
        }

    def _item(self, endpoint_id: EndpointId, drive_id: str, item: FakedItem) -> Row:
        above = None if item.parent is None else f"{drive_id}:{item.parent}"
        hashed = base64.b64encode(item.id.encode()).decode()
        return {
            "space_cdm_id": reference("cdm.doc.space", endpoint_id, drive_id),
            "parent_item_cdm_id": reference("cdm.doc.item", endpoint_id, above),
            "title": item.name,
            "item_type": "folder" if item.is_folder else "file",
            "mime_type": None if item.is_folder else "text/plain",
            "size_bytes": item.size,
            "version": f'"{{{item.id}}},{item.version}"',
            "author_id": "u-1",
            "editor_id": "u-1",
            "content_hash": None if item.is_folder else hashed,
            "created_at": item.created,
            "updated_at": item.updated,
            "url": f"https://contoso.example/{drive_id}/{item.id}",
        }
