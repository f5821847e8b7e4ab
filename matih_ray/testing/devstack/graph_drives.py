"""Drives of Microsoft Graph, our own: delta with its tokens, expiry, moves, deletions and refusals.

After https://learn.microsoft.com/graph/api/driveitem-delta and its siblings. A full enumeration
shows the items as they were when it began, each in its latest state, and after them whatever has
changed since, so that an item may come twice; deleted items have an id and little else; paths are
not told in a delta; a token that is too old is answered with 410 and a place to begin anew.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response

from matih_ray.testing.devstack.faked_site import FakedSite, as_json, iso

DIRECTORY = "contoso"
CLIENT_ID = "reader-app"
SECRET = "a-secret-nobody-may-see"  # noqa: S105 opens nothing else
DRIVE = "b!shop"
ROOT = "ROOT"
_PERSON = {"user": {"id": "u-1", "displayName": "Ada Löwe", "email": "ada@contoso.example"}}


@dataclass
class FakedItem:
    """An item; `changed` is its place in its drive's order of changes."""

    id: str
    name: str
    parent: str | None
    is_folder: bool
    size: int
    created: dt.datetime
    updated: dt.datetime
    changed: int
    version: int = 1
    deleted: bool = False


@dataclass
class FakedDrive:
    """A drive, its items by id, and how many changes there were."""

    id: str
    owner: str
    items: dict[str, FakedItem] = field(default_factory=dict)
    changes: int = 0
    expired_before: int = -1
    snapshots: dict[int, list[str]] = field(default_factory=dict)


class GraphDrives(FakedSite):
    """The server, with one drive that has a root folder.

    Faults: `forbidden` and `unknown` are ids of drives and owners that are refused with 403 and
    404; `circles` makes every link to the next page lead to itself; `accepted` are valid tokens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.drives: dict[str, FakedDrive] = {}
        self.accepted: set[str] = set()
        self.granted = 0
        self.token_lifetime_s = 3600
        self.forbidden: set[str] = set()
        self.unknown: set[str] = set()
        self.circles = False
        self.add_drive(DRIVE)

    def add_drive(
        self,
        drive_id: str,
        owner: str = "ada@contoso.example",
        root: str = ROOT,
        name: str = "root",
    ) -> None:
        """A drive with an empty root folder of this id and name."""
        drive = self.drives[drive_id] = FakedDrive(drive_id, owner)
        drive.items[root] = self._item(drive, root, name, None, is_folder=True)

    def put(
        self,
        item_id: str,
        name: str,
        parent: str = ROOT,
        *,
        is_folder: bool = False,
        size: int = 1,
        drive: str = DRIVE,
    ) -> None:
        """A new file or folder, or a new state of one: renamed, moved, or with other content."""
        into = self.drives[drive]
        item = self._item(into, item_id, name, parent, is_folder=is_folder)
        item.size = size
        if (earlier := into.items.get(item_id)) is not None:
            item.version, item.created = earlier.version + 1, earlier.created
        into.items[item_id] = item

    def move(
        self,
        item_id: str,
        *,
        parent: str | None = None,
        name: str | None = None,
        drive: str = DRIVE,
    ) -> None:
        """Rename or move; as in reality, only the item itself changes, and not its time."""
        into = self.drives[drive]
        item = into.items[item_id]
        item.parent, item.name = parent or item.parent, name or item.name
        into.changes += 1
        item.changed, item.version = into.changes, item.version + 1

    def delete(self, item_id: str, *, drive: str = DRIVE, with_content: bool = True) -> None:
        """Delete an item; delta tells of what is below it only `with_content`."""
        into = self.drives[drive]
        below = [i.id for i in into.items.values() if i.parent == item_id and not i.deleted]
        for child in below:
            self.delete(child, drive=drive, with_content=with_content)
        item = into.items[item_id]
        item.deleted = True
        into.changes += 1
        item.changed = into.changes
        if below and not with_content:
            for child in below:
                into.items[child].changed = -1  # never told

    def purge_quietly(self, item_id: str, drive: str = DRIVE) -> None:
        """Delete an item without a trace in the changes."""
        del self.drives[drive].items[item_id]

    def expire(self, drive: str = DRIVE) -> None:
        """Make all tokens so far too old."""
        self.drives[drive].expired_before = self.drives[drive].changes + 1
        self.drives[drive].changes += 1

    def truth(self, drive: str = DRIVE) -> dict[str, str]:
        """The path of each item that is there."""
        found = self.drives[drive].items
        return {i.id: self._path(found, i) for i in found.values() if not i.deleted}

    def refusal(self, request: Request) -> Response | None:
        """See `FakedSite`."""
        if not request.url.path.startswith("/v1.0/"):
            return None
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in self.accepted:
            return _error(401, "InvalidAuthenticationToken", "Lifetime validation failed.")
        named = set(request.url.path.split("/"))
        if named & self.forbidden:
            return _error(403, "accessDenied", "The caller does not have permission.")
        if named & self.unknown:
            return _error(404, "itemNotFound", "The resource could not be found.")
        return None

    def add_routes(self, app: FastAPI) -> None:
        """See `FakedSite`."""

        @app.post("/{directory}/oauth2/v2.0/token")
        async def token(directory: str, request: Request) -> Response:
            told = base64.b64decode(request.headers.get("Authorization", "")[6:]).decode()
            form = (await request.body()).decode()
            if directory != DIRECTORY or told != f"{CLIENT_ID}:{SECRET}":
                return as_json({"error": "invalid_client"}, 401)
            assert "grant_type=client_credentials" in form
            assert ".default" in form
            self.granted += 1
            name = f"granted-{self.granted}"
            self.accepted.add(name)
            return as_json({"access_token": name, "expires_in": self.token_lifetime_s})

        @app.get("/v1.0/{kind}/{owner}/drives")
        def drives_of(kind: str, owner: str) -> Response:
            owned = [d for d in self.drives.values() if d.owner == owner]
            if not owned:
                return _error(404, "itemNotFound", f"no {kind} {owner}")
            return as_json({"value": [self._drive_json(drive) for drive in owned]})

        @app.get("/v1.0/drives/{drive}")
        def one(drive: str) -> Response:
            found = self.drives.get(drive)
            return _gone() if found is None else as_json(self._drive_json(found))

        @app.get("/v1.0/drives/{drive}/root/delta")
        def delta(drive: str, request: Request) -> Response:
            found = self.drives.get(drive)
            return _gone() if found is None else self._delta(found, request)

        @app.get("/v1.0/drives/{drive}/items/{item}")
        def item(drive: str, item: str) -> Response:
            found = self.drives[drive].items.get(item)
            if found is None or found.deleted:
                return _gone()
            return as_json(self._item_json(self.drives[drive], found, with_path=True))

        @app.get("/v1.0/drives/{drive}/items/{item}/children")
        def children(drive: str, item: str, request: Request) -> Response:
            return self._children(self.drives[drive], item, request)

    def _item(
        self, drive: FakedDrive, item_id: str, name: str, parent: str | None, *, is_folder: bool
    ) -> FakedItem:
        drive.changes += 1
        return FakedItem(item_id, name, parent, is_folder, 0, self.now, self.now, drive.changes)

    def _delta(self, drive: FakedDrive, request: Request) -> Response:
        token = request.query_params.get("token")
        top = int(request.query_params.get("$top", 200))
        if token is None:
            there = [i.id for i in _by_depth(drive) if not i.deleted]
            drive.snapshots.setdefault(drive.changes, there)
            state = {"all": drive.changes, "at": 0, "after": drive.changes, "top": top}
        else:
            try:
                state = json.loads(base64.urlsafe_b64decode(token))
            except ValueError:
                return _error(400, "syncStateNotFound", "The sync state was not found.")
        if state["after"] < drive.expired_before:
            location = str(request.url.replace(query=""))
            told = _error(410, "resyncChangesApplyDifferences", "Resync required.")
            told.headers["Location"] = location
            return told
        found, following = self._next(drive, state)
        body: dict[str, Any] = {
            "@odata.context": f"{self.url}/v1.0/$metadata#Collection(driveItem)",
            "value": [self._item_json(drive, i, with_path=False) for i in found],
        }
        if following is None:
            state = {"after": drive.changes, "top": state["top"]}
            body["@odata.deltaLink"] = self._link(drive, state)
        elif self.circles:
            body["@odata.nextLink"] = self._link(drive, {"after": 0, "top": 1, "circle": True})
        else:
            body["@odata.nextLink"] = self._link(drive, following)
        return as_json(body)

    def _next(
        self, drive: FakedDrive, state: dict[str, int]
    ) -> tuple[list[FakedItem], dict[str, int] | None]:
        top = state["top"]
        if "all" in state:
            ids = drive.snapshots[state["all"]]
            page = ids[state["at"] : state["at"] + top]
            there = [i for p in page if (i := drive.items.get(p)) is not None and not i.deleted]
            if state["at"] + top < len(ids):
                return there, {**state, "at": state["at"] + top}
            tail = any(i.changed > state["after"] for i in drive.items.values())
            return there, {"after": state["after"], "top": top} if tail else None
        later = sorted(
            (i for i in drive.items.values() if i.changed > state["after"]),
            key=lambda i: i.changed,
        )
        page_items = later[:top]
        if len(later) <= top:
            return page_items, None
        return page_items, {"after": page_items[-1].changed, "top": top}

    def _children(self, drive: FakedDrive, folder: str, request: Request) -> Response:
        found = drive.items.get(folder)
        if found is None or found.deleted:
            return _gone()
        top = int(request.query_params.get("$top", 200))
        start = int(request.query_params.get("$skiptoken", 0))
        inside = [i for i in drive.items.values() if i.parent == folder and not i.deleted]
        inside.sort(key=lambda i: i.name)
        told = [self._item_json(drive, i, with_path=True) for i in inside[start : start + top]]
        body: dict[str, Any] = {"value": told}
        if start + top < len(inside):
            path = f"{self.url}/v1.0/drives/{drive.id}/items/{folder}/children"
            body["@odata.nextLink"] = f"{path}?$top={top}&$skiptoken={start + top}"
        return as_json(body)

    def _link(self, drive: FakedDrive, state: dict[str, Any]) -> str:
        token = base64.urlsafe_b64encode(json.dumps(state).encode()).decode()
        return f"{self.url}/v1.0/drives/{drive.id}/root/delta?token={token}"

    def _drive_json(self, drive: FakedDrive) -> dict[str, Any]:
        return {
            "id": drive.id,
            "driveType": "business",
            "name": "OneDrive",
            "createdDateTime": iso(self.created),
            "owner": {"user": {"id": "u-1", "displayName": drive.owner, "email": drive.owner}},
            "quota": {"total": 2**40, "used": 2**33, "state": "normal"},
            "webUrl": f"https://contoso.example/personal/{drive.owner}",
        }

    def _item_json(self, drive: FakedDrive, item: FakedItem, *, with_path: bool) -> dict[str, Any]:
        above: dict[str, Any] = {"driveId": drive.id, "driveType": "business"}
        if item.parent is not None:
            above["id"] = item.parent
            if with_path:
                parent = self._path(drive.items, drive.items[item.parent])
                above["path"] = f"/drives/{drive.id}/root:{'' if parent == '/' else parent}"
        if item.deleted:  # a business drive tells neither name nor cTag
            return {"id": item.id, "parentReference": above, "deleted": {"state": "deleted"}}
        told: dict[str, Any] = {
            "id": item.id,
            "name": item.name,
            "size": item.size,
            "createdDateTime": iso(item.created),
            "lastModifiedDateTime": iso(item.updated),
            "createdBy": _PERSON,
            "lastModifiedBy": _PERSON,
            "eTag": f'"{{{item.id}}},{item.version}"',
            "webUrl": f"https://contoso.example/{drive.id}/{item.id}",
            "parentReference": above,
            "fileSystemInfo": {"createdDateTime": iso(item.created)},
        }
        if item.is_folder:
            inside = [i for i in drive.items.values() if i.parent == item.id and not i.deleted]
            told["folder"] = {"childCount": len(inside)}
        else:
            hashes = {"quickXorHash": base64.b64encode(item.id.encode()).decode()}
            told["file"] = {"mimeType": "text/plain", "hashes": hashes}
        if item.parent is None:
            told["root"] = {}
        return told

    def _path(self, items: dict[str, FakedItem], item: FakedItem) -> str:
        if item.parent is None:
            return "/"
        above = self._path(items, items[item.parent])
        return f"{'' if above == '/' else above}/{item.name}"


def _by_depth(drive: FakedDrive) -> list[FakedItem]:
    def depth(item: FakedItem) -> int:
        return 0 if item.parent is None else 1 + depth(drive.items[item.parent])

    return sorted(drive.items.values(), key=lambda item: (depth(item), item.changed))


def _gone() -> Response:
    return _error(404, "itemNotFound", "The resource could not be found.")


def _error(status: int, code: str, message: str) -> Response:
    return as_json({"error": {"code": code, "message": message}}, status)
