"""What each call of Jira's REST API v3 answers, of a `Site`, and the faults that a test orders."""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable
from typing import Any

from starlette.requests import Request

from matih_ray.testing.devstack.jira_jql import JqlError, find
from matih_ray.testing.devstack.jira_replay import Asked, Replay
from matih_ray.testing.devstack.jira_site import SPRINT_FIELD, JsonObject, Site

REFRESH_TOKEN = "refresh-0"  # noqa: S105 - of a test server
MAX_IDS, MAX_ISSUES, INLINE_COMMENTS = 5000, 100, 20
WORKLOGS_A_PAGE, OBJECTS_A_PAGE = 1000, 100
_BUILT_IN_FIELDS = ("summary", "status", "updated", "created", "project", "comment")


class RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, *messages: str, headers: JsonObject | None = None) -> None:
        super().__init__(*messages)
        self.status, self.messages, self.headers = status, list(messages), headers or {}


class JiraServerState:
    """The site, who is let in, the faults to come, and what was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """An empty site."""
        self.site = Site(self.url)
        self.calls: list[str] = []
        # method, path with query, and body of each call, while they are kept
        self.recording = False
        self.recorded: list[tuple[str, str, Any]] = []
        # whether answers are kept, or given again
        self.keeping = self.replaying = False
        self.replay = Replay()
        self.faults: list[JsonObject] = []
        # before each answer, others meanwhile
        self.latency_s = 0.0
        self.page_max = MAX_IDS
        self.edit_while_paging = False
        self.edit_while_searching = False
        self.refresh_token = REFRESH_TOKEN
        self.access_tokens: set[str] = set()
        self.token_lifetime_s = 3600
        self.grants = 0

    # --- the part that is not Jira's ---------------------------------------------------------

    def administer(self, order: JsonObject) -> Any:
        """Carry out an order of a test."""
        what, given = order["do"], order.get("with", {})
        plain: dict[str, Callable[[], Any]] = {
            "reset": self.reset,
            "calls": lambda: self.calls,
            "recorded": lambda: self.recorded,
            "forget_calls": self.calls.clear,
            "grants": lambda: self.grants,
            "expire_tokens": self.access_tokens.clear,
            "issues": lambda: [self.issue(i, ["*all"]) for i in self.site.issues.values()],
            "truth": self.truth,
        }
        if what in plain:
            return plain[what]()
        if what == "fault":
            return self.faults.append({"times": 1, "every": 1, "seen": 0, **given})
        if what == "set":
            for name, value in given.items():
                target = self.site if hasattr(self.site, name) else self
                assert hasattr(target, name), name
                setattr(target, name, set(value) if name in ("hidden", "forbidden") else value)
            return None
        return getattr(self.site, what)(**given)

    def note(self, asked: Asked) -> str:
        """Remember a call; its method and path."""
        method, path, body = asked
        self.calls.append(f"{method} {path.partition('?')[0]}")
        if self.recording:
            self.recorded.append((method, path, json.loads(body) if body else None))
        return self.calls[-1]

    def fault(self, call: str) -> JsonObject | None:
        """The fault that is due for a call."""
        for fault in self.faults:
            if fault["times"] > 0 and re.search(fault["match"], call):
                fault["seen"] += 1
                if fault["seen"] % fault["every"] == 0:
                    fault["times"] -= 1
                    return fault
        return None

    def truth(self) -> JsonObject:
        """All that the site holds, as the API gives it but in whole: comments, histories and
        worklogs by issue."""
        site = self.site
        return {
            "issues": [self.issue(i, ["*all"]) for i in site.issues.values()],
            "projects": [self.project(key) for key in site.projects],
            "users": site.users,
            "sprints": list(site.sprints.values()),
            "comments": {i["id"]: i["fields"]["comment"] for i in site.issues.values()},
            "histories": {i: site.histories.get(i, []) for i in site.issues},
            "worklogs": list(site.worklogs.values()),
        }

    # --- shapes ------------------------------------------------------------------------------

    def project(self, key: str) -> JsonObject:
        """A project as the API gives it."""
        found = {k: v for k, v in self.site.projects[key].items() if not k.startswith("_")}
        count = sum(1 for i in self.site.issues.values() if i["project"] == key)
        return {**found, "insight": {"totalIssueCount": count}}

    def issue(self, issue: JsonObject, fields: list[str]) -> JsonObject:
        """An issue as the API gives it, with the fields that were asked for."""
        site = self.site
        answer: JsonObject = {
            "id": str(issue["id"]),
            "self": f"{self.url}/rest/api/3/issue/{issue['id']}",
            "key": issue["key"],
        }
        wanted = {name for name in fields if not name.startswith("-")}
        if wanted <= {"id", "key"}:
            return answer
        project = site.projects[issue["project"]]
        everything = {
            **issue["fields"],
            "created": site.written(issue["created"]),
            "updated": site.written(issue["updated"]),
            "project": {name: project[name] for name in ("self", "id", "key", "name")},
        }
        comments = everything["comment"]
        everything["comment"] = {
            "comments": comments[:INLINE_COMMENTS], "self": f"{answer['self']}/comment",
            "maxResults": len(comments[:INLINE_COMMENTS]), "total": len(comments), "startAt": 0,
        }  # fmt: skip
        for name in fields:
            if name.startswith("-"):
                everything.pop(name[1:], None)
        if not wanted & {"*all", "*navigable"}:
            everything = {k: v for k, v in everything.items() if k in wanted}
        return {**answer, "fields": everything}


# --- the API -------------------------------------------------------------------------------------


def myself(state: JiraServerState, _request: Request, _body: Any) -> Any:
    """GET /myself."""
    return {**state.site.users[0], "timeZone": state.site.zone_name}


def server_info(state: JiraServerState, _request: Request, _body: Any) -> Any:
    """GET /serverInfo."""
    site = state.site
    return {
        "baseUrl": state.url, "version": "1001.0.0-SNAPSHOT", "versionNumbers": [1001, 0, 0],
        "deploymentType": "Cloud", "buildNumber": 100_000, "serverTitle": "Test",
        "serverTime": site.written(site.now_ms()),
    }  # fmt: skip


def permissions(state: JiraServerState, request: Request, _body: Any) -> Any:
    """GET /mypermissions."""
    key = request.query_params.get("projectKey", "")
    if key and (key not in state.site.projects or key in state.site.hidden):
        raise RefusedError(404, f"No project could be found with key '{key}'.")
    has = key not in state.site.forbidden
    permission = {
        "id": "10", "key": "BROWSE_PROJECTS", "name": "Browse Projects", "type": "PROJECT",
        "description": "", "havePermission": has,
    }  # fmt: skip
    return {"permissions": {"BROWSE_PROJECTS": permission}}


def projects(state: JiraServerState, request: Request, _body: Any) -> Any:
    """GET /project/search."""
    keys = sorted(key for key in state.site.projects if key not in state.site.hidden)
    return _page(state, request, "values", [state.project(key) for key in keys], "project/search")


def fields(_state: JiraServerState, _request: Request, _body: Any) -> Any:
    """GET /field."""
    sprint = {
        "type": "array", "items": "json", "customId": 10020,
        "custom": "com.pyxis.greenhopper.jira:gh-sprint",
    }  # fmt: skip
    named = [{"id": name, "name": name.title(), "custom": False} for name in _BUILT_IN_FIELDS]
    return [*named, {"id": SPRINT_FIELD, "name": "Sprint", "custom": True, "schema": sprint}]


def statuses(state: JiraServerState, _request: Request, _body: Any) -> Any:
    """GET /status."""
    return state.site.statuses


def users(state: JiraServerState, request: Request, _body: Any) -> Any:
    """GET /users/search."""
    start, size = _range(request, 1000)
    return state.site.users[start : start + size]


def count(state: JiraServerState, _request: Request, body: Any) -> Any:
    """POST /search/approximate-count."""
    return {"count": len(_found(state, body.get("jql", "")))}


def search(state: JiraServerState, _request: Request, body: Any) -> Any:
    """POST /search/jql: a token is a place in the result as it is when it is used."""
    asked = body.get("fields") or ["id"]
    most = min(MAX_IDS, state.page_max) if set(asked) <= {"id", "key"} else MAX_ISSUES
    size = min(int(body.get("maxResults", 50)), most)
    start = 0
    if token := body.get("nextPageToken"):
        try:
            start, jql = json.loads(base64.b64decode(token))
        except ValueError:
            raise RefusedError(400, "The nextPageToken is invalid.") from None
        if jql != body["jql"]:
            raise RefusedError(400, "The nextPageToken belongs to another query.")
    found = _found(state, body.get("jql", ""))
    page = found[start : start + size]
    answer: JsonObject = {"issues": [state.issue(issue, asked) for issue in page]}
    if start + size < len(found):
        text = json.dumps([start + size, body["jql"]])
        answer["nextPageToken"] = base64.b64encode(text.encode()).decode()
        if state.edit_while_paging and page:
            # what was on this page leaves or keeps its place, and the next page moves with it
            state.site.edit(page[0]["id"], {"summary": "edited while paging"})
    else:
        answer["isLast"] = True
    if state.edit_while_searching:
        _edit_another(state.site, found)
    return answer


def _edit_another(site: Site, found: list[JsonObject]) -> None:
    """Change the latest issue that was not found, but for those that have just been changed."""
    ids = {issue["id"] for issue in found}
    others = [
        i for i in site.issues.values() if i["id"] not in ids and i["updated"] < site.now_ms()
    ]
    if others:
        latest = max(others, key=lambda issue: issue["updated"])
        site.edit(latest["id"], {"summary": "edited while searching"})


def bulk_fetch(state: JiraServerState, _request: Request, body: Any) -> Any:
    """POST /issue/bulkfetch."""
    ids = body["issueIdsOrKeys"]
    if len(ids) > MAX_ISSUES:
        raise RefusedError(400, "The number of issues exceeds 100.")
    answer: JsonObject = {"issues": [], "issueErrors": []}
    for id_ in sorted(set(ids), key=int):
        issue = state.site.issues.get(int(id_))
        if issue is None or issue["project"] in state.site.hidden | state.site.forbidden:
            message = "Issue does not exist or you do not have permission to see it."
            answer["issueErrors"].append({"id": id_, "errorMessage": message})
        else:
            answer["issues"].append(state.issue(issue, body.get("fields") or ["*navigable"]))
    return answer


def changelogs(state: JiraServerState, _request: Request, body: Any) -> Any:
    """POST /changelog/bulkfetch."""
    flat = [
        (id_, history)
        for id_ in body["issueIdsOrKeys"]
        for history in state.site.histories.get(int(id_), [])
    ]
    start, size = int(body.get("nextPageToken") or 0), int(body.get("maxResults", 1000))
    logs: list[JsonObject] = []
    for id_, history in flat[start : start + size]:
        if not logs or logs[-1]["issueId"] != id_:
            logs.append({"issueId": id_, "changeHistories": []})
        logs[-1]["changeHistories"].append(history)
    more = {"nextPageToken": str(start + size)} if start + size < len(flat) else {}
    return {"issueChangeLogs": logs, **more}


def comments(state: JiraServerState, request: Request, _body: Any) -> Any:
    """GET /issue/{id}/comment."""
    issue = state.site.issues.get(int(request.path_params["id"]))
    if issue is None:
        raise RefusedError(404, "Issue does not exist or you do not have permission to see it.")
    found, (start, size) = issue["fields"]["comment"], _range(request, 100)
    return {
        "comments": found[start : start + size], "startAt": start, "maxResults": size,
        "total": len(found),
    }  # fmt: skip


def worklog_feed(state: JiraServerState, request: Request, _body: Any) -> Any:
    """GET /worklog/updated and /worklog/deleted: the last minute is left out."""
    since, site = int(request.query_params.get("since", 0)), state.site
    feed = request.url.path.rpartition("/")[2]
    all_ = (
        [(int(w["id"]), w["_at"]) for w in site.worklogs.values()]
        if feed == "updated"
        else site.deleted_worklogs
    )
    end = site.now_ms() - 60_000
    found = sorted(((at, id_) for id_, at in all_ if since <= at <= end), key=lambda change: change)
    page = found[:WORKLOGS_A_PAGE]
    is_last = len(page) == len(found)
    until = end if is_last else page[-1][0]
    self_ = f"{state.url}/rest/api/3/worklog/{feed}"
    more = {} if is_last else {"nextPage": f"{self_}?since={until}"}
    return {
        "values": [{"worklogId": id_, "updatedTime": at, "properties": []} for at, id_ in page],
        "since": since, "until": until, "self": f"{self_}?since={since}", "lastPage": is_last,
        **more,
    }  # fmt: skip


def worklog_list(state: JiraServerState, _request: Request, body: Any) -> Any:
    """POST /worklog/list."""
    if len(body["ids"]) > 1000:
        raise RefusedError(400, "The number of worklogs exceeds 1000.")
    found = (state.site.worklogs.get(int(id_)) for id_ in body["ids"])
    return [{k: v for k, v in w.items() if not k.startswith("_")} for w in found if w is not None]


def boards(state: JiraServerState, request: Request, _body: Any) -> Any:
    """GET /rest/agile/1.0/board."""
    found = [{"id": 1, "self": f"{state.url}/rest/agile/1.0/board/1", "name": "B", "type": "scrum"}]
    return _page(state, request, "values", found, "board")


def sprints(state: JiraServerState, request: Request, _body: Any) -> Any:
    """GET /rest/agile/1.0/board/{id}/sprint."""
    return _page(state, request, "values", list(state.site.sprints.values()), "sprint")


def _found(state: JiraServerState, jql: str) -> list[JsonObject]:
    try:
        return find(state.site, jql)
    except JqlError as error:
        raise RefusedError(400, str(error)) from None


def _range(request: Request, most: int) -> tuple[int, int]:
    size = min(int(request.query_params.get("maxResults", 50)), most)
    return int(request.query_params.get("startAt", 0)), size


def _page(
    state: JiraServerState, request: Request, name: str, found: list[Any], path: str
) -> JsonObject:
    start, size = _range(request, OBJECTS_A_PAGE)
    return {
        "self": f"{state.url}/rest/api/3/{path}", "maxResults": size, "startAt": start,
        "total": len(found), "isLast": start + size >= len(found),
        name: found[start : start + size],
    }  # fmt: skip


Answering = Callable[[JiraServerState, Request, Any], Any]
V3 = "/rest/api/3"
PATHS: list[tuple[str, str, Answering]] = [
    ("GET", f"{V3}/myself", myself),
    ("GET", f"{V3}/serverInfo", server_info),
    ("GET", f"{V3}/mypermissions", permissions),
    ("GET", f"{V3}/project/search", projects),
    ("GET", f"{V3}/field", fields),
    ("GET", f"{V3}/status", statuses),
    ("GET", f"{V3}/users/search", users),
    ("POST", f"{V3}/search/approximate-count", count),
    ("POST", f"{V3}/search/jql", search),
    ("POST", f"{V3}/issue/bulkfetch", bulk_fetch),
    ("POST", f"{V3}/changelog/bulkfetch", changelogs),
    ("GET", f"{V3}/issue/{{id}}/comment", comments),
    ("GET", f"{V3}/worklog/updated", worklog_feed),
    ("GET", f"{V3}/worklog/deleted", worklog_feed),
    ("POST", f"{V3}/worklog/list", worklog_list),
    ("GET", "/rest/agile/1.0/board", boards),
    ("GET", "/rest/agile/1.0/board/{id}/sprint", sprints),
]
