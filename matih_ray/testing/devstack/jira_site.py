"""The contents of a Jira site for tests: made of numbers, so equal numbers make equal sites.

Times are milliseconds since 1970 by the site's own clock. What people do to a site (edit, move,
delete, comment, log work, link) are methods, and each leaves the traces that Jira leaves: a new
`updated`, history entries, the feeds of worklogs.
"""

from __future__ import annotations

import datetime as dt
import time
from typing import Any
from zoneinfo import ZoneInfo

JsonObject = dict[str, Any]

CUSTOMERS, STATUS_NAMES = 25, ("To Do", "In Progress", "Done")
_CATEGORIES = (
    {"id": 2, "key": "new", "name": "To Do", "colorName": "blue-gray"},
    {"id": 4, "key": "indeterminate", "name": "In Progress", "colorName": "yellow"},
    {"id": 3, "key": "done", "name": "Done", "colorName": "green"},
)
SPRINT_FIELD = "customfield_10020"
# The first of generated issues was changed so long ago, and they follow each other evenly.
SPREAD_MS = 90 * 86_400_000
FIRST_ISSUE_ID = 10_001


def document(text: str) -> JsonObject:
    """A text in Atlassian Document Format."""
    paragraphs = [
        {"type": "paragraph", "content": [{"type": "text", "text": line}]}
        for line in text.split("\n")
    ]
    return {"type": "doc", "version": 1, "content": paragraphs}


class Site:
    """One site, as its one account sees it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.zone_name = "UTC"
        self.clock_offset_s = 0.0
        self.frozen_ms: int | None = None
        self.projects: dict[str, JsonObject] = {}
        self.issues: dict[int, JsonObject] = {}
        self.histories: dict[int, list[JsonObject]] = {}
        self.worklogs: dict[int, JsonObject] = {}
        self.deleted_worklogs: list[tuple[int, int]] = []
        self.hidden: set[str] = set()
        self.forbidden: set[str] = set()
        self.users = [self._user(n) for n in range(CUSTOMERS)]
        self.statuses = [self._status(n) for n in range(len(STATUS_NAMES))]
        self.sprints: dict[int, JsonObject] = {}
        self._next_id = {"issue": FIRST_ISSUE_ID, "other": 1}

    # --- time --------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The site's clock."""
        if self.frozen_ms is not None:
            return self.frozen_ms
        return int((time.time() + self.clock_offset_s) * 1000)

    @property
    def zone(self) -> ZoneInfo:
        """The account's time zone."""
        return ZoneInfo(self.zone_name)

    def written(self, ms: int) -> str:
        """A time as the API writes it: in the account's zone, with milliseconds."""
        moment = dt.datetime.fromtimestamp(ms / 1000, self.zone)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}" + moment.strftime("%z")

    # --- contents ----------------------------------------------------------------------------

    def add_project(self, key: str, name: str | None = None) -> JsonObject:
        """A project."""
        number = 10_000 + len(self.projects)
        self.projects[key] = {
            "self": f"{self.url}/rest/api/3/project/{number}",
            "id": str(number),
            "key": key,
            "name": name or f"Project {key}",
            "description": f"All about {key}",
            "lead": self.users[0],
            "projectTypeKey": "software",
            "style": "classic",
            "isPrivate": False,
            "simplified": False,
        }
        return self.projects[key]

    def rename_project(self, key: str, name: str) -> None:
        """Give a project another name; its key stays."""
        self.projects[key]["name"] = name

    def generate(self, project: str, count: int) -> None:
        """Issues whose fields follow from their number, evenly spread over the last months."""
        if project not in self.projects:
            self.add_project(project)
        end = self.now_ms() - 3_600_000
        for n in range(count):
            updated = end - SPREAD_MS + SPREAD_MS * (n + 1) // count
            self.add_issue(project, f"Issue {n} of {project}", at_ms=updated, number=n)

    def add_issue(
        self, project: str, summary: str, at_ms: int | None = None, number: int = 0
    ) -> JsonObject:
        """One issue; returns its API form without what is computed."""
        id_ = self._new_id("issue")
        at = self.now_ms() if at_ms is None else at_ms
        place = self.projects[project].setdefault("_issues", 0) + 1
        self.projects[project]["_issues"] = place
        fields: JsonObject = {
            "summary": summary,
            "description": document(f"What {summary} is about.\nMore of it."),
            "issuetype": {
                "self": f"{self.url}/rest/api/3/issuetype/10001", "id": "10001", "name": "Task",
                "subtask": False, "hierarchyLevel": 0,
            },
            "status": self.statuses[number % len(self.statuses)],
            "priority": {"id": "3", "name": "Medium"},
            "resolution": None,
            "assignee": self.users[number % CUSTOMERS] if number % 7 else None,
            "reporter": self.users[(number + 1) % CUSTOMERS],
            "creator": self.users[(number + 1) % CUSTOMERS],
            "labels": [f"label-{number % 5}"],
            "components": [],
            "fixVersions": [{"id": "10100", "name": "1.0"}] if number % 3 == 0 else [],
            "versions": [],
            "duedate": "2026-12-24" if number % 4 == 0 else None,
            "timespent": None,
            "timeoriginalestimate": 3600 * (number % 9),
            "timeestimate": None,
            "resolutiondate": None,
            "issuelinks": [],
            "comment": [],
            SPRINT_FIELD: None,
        }  # fmt: skip
        self.issues[id_] = {
            "id": id_, "key": f"{project}-{place}", "project": project,
            "created": at - 60_000, "updated": at, "fields": fields,
        }  # fmt: skip
        return self.issues[id_]

    def add_issues(self, project: str, first_id: int, summaries: list[str]) -> None:
        """Issues with ids from a number on."""
        self._next_id["issue"] = first_id
        for number, summary in enumerate(summaries):
            self.add_issue(project, summary, number=number)

    # --- what people do ----------------------------------------------------------------------

    def edit(self, id_: int, fields: JsonObject, at_ms: int | None = None) -> None:
        """Change fields of an issue; `status` by its name."""
        issue = self.issues[id_]
        items = []
        for name, value in fields.items():
            before = issue["fields"].get(name)
            after = (
                next(s for s in self.statuses if s["name"] == value) if name == "status" else value
            )
            items.append(self._item(name, before, after))
            issue["fields"][name] = after
        self._touch(id_, at_ms)
        self._note(id_, items)

    def move(self, id_: int, project: str) -> None:
        """Move an issue to another project: its id stays, its key does not."""
        issue = self.issues[id_]
        place = self.projects[project].setdefault("_issues", 0) + 1
        self.projects[project]["_issues"] = place
        issue["project"], issue["key"] = project, f"{project}-{place}"
        self._touch(id_)

    def delete(self, id_: int) -> None:
        """Delete an issue and what belongs to it; no feed tells of it but that of worklogs."""
        del self.issues[id_]
        self.histories.pop(id_, None)
        for worklog in [w for w in self.worklogs.values() if w["issueId"] == str(id_)]:
            self.delete_worklog(int(worklog["id"]))

    def comment(self, id_: int, text: str) -> int:
        """Add a comment; returns its id."""
        now, comment_id = self.now_ms(), self._new_id("other")
        self.issues[id_]["fields"]["comment"].append(
            {
                "self": f"{self.url}/rest/api/3/issue/{id_}/comment/{comment_id}",
                "id": str(comment_id),
                "author": self.users[1],
                "updateAuthor": self.users[1],
                "body": document(text),
                "created": self.written(now),
                "updated": self.written(now),
                "jsdPublic": True,
            }
        )
        self._touch(id_)
        return comment_id

    def delete_comment(self, id_: int, comment_id: int) -> None:
        """Delete a comment; nothing but its absence tells of it."""
        kept = [c for c in self.issues[id_]["fields"]["comment"] if c["id"] != str(comment_id)]
        self.issues[id_]["fields"]["comment"] = kept
        self._touch(id_)

    def unlink(self, link_id: int) -> None:
        """Take a link away from both its issues."""
        for id_, issue in self.issues.items():
            links = issue["fields"]["issuelinks"]
            kept = [link for link in links if link["id"] != str(link_id)]
            if len(kept) < len(links):
                issue["fields"]["issuelinks"] = kept
                self._touch(id_)

    def log_work(self, id_: int, seconds: int, at_ms: int | None = None) -> int:
        """Log work; returns the worklog's id."""
        at, worklog_id = self.now_ms() if at_ms is None else at_ms, self._new_id("other")
        self.worklogs[worklog_id] = {
            "self": f"{self.url}/rest/api/3/issue/{id_}/worklog/{worklog_id}",
            "id": str(worklog_id),
            "issueId": str(id_),
            "author": self.users[2],
            "updateAuthor": self.users[2],
            "comment": document("worked on it"),
            "started": self.written(at),
            "timeSpent": f"{seconds // 60}m",
            "timeSpentSeconds": seconds,
            "created": self.written(at),
            "updated": self.written(at),
            "_at": at,
        }
        return worklog_id

    def delete_worklog(self, id_: int, at_ms: int | None = None) -> None:
        """Delete a worklog, which its feed tells."""
        del self.worklogs[id_]
        self.deleted_worklogs.append((id_, self.now_ms() if at_ms is None else at_ms))

    def link(self, source: int, target: int) -> int:
        """Let one issue block another; returns the link's id."""
        link_id = self._new_id("other")
        kind = {"id": "10000", "name": "Blocks", "inward": "is blocked by", "outward": "blocks"}
        for here, there, name in (
            (source, target, "outwardIssue"),
            (target, source, "inwardIssue"),
        ):
            other = {"id": str(there), "key": self.issues[there]["key"]}
            link = {"id": str(link_id), "type": kind, name: other}
            self.issues[here]["fields"]["issuelinks"].append(link)
            self._touch(here)
        return link_id

    def add_sprint(self, name: str) -> JsonObject:
        """A sprint of the one board."""
        id_ = self._new_id("other")
        self.sprints[id_] = {
            "id": id_, "self": f"{self.url}/rest/agile/1.0/sprint/{id_}", "state": "active",
            "name": name, "startDate": "2026-11-01T08:00:00.000Z",
            "endDate": "2026-11-15T08:00:00.000Z", "originBoardId": 1, "goal": "get it done",
        }  # fmt: skip
        return self.sprints[id_]

    # --- inside ------------------------------------------------------------------------------

    def _touch(self, id_: int, at_ms: int | None = None) -> None:
        issue = self.issues[id_]
        # two changes are never at the same time
        issue["updated"] = max(self.now_ms() if at_ms is None else at_ms, issue["updated"] + 1)

    def _note(self, id_: int, items: list[JsonObject]) -> None:
        entry = {
            "id": str(self._new_id("other")),
            "author": self.users[0],
            "created": self.written(self.issues[id_]["updated"]),
            "items": items,
        }
        self.histories.setdefault(id_, []).append(entry)

    @staticmethod
    def _item(name: str, before: Any, after: Any) -> JsonObject:
        def ends(value: Any) -> tuple[str | None, str | None]:
            if isinstance(value, dict):
                return str(value.get("id")), str(value.get("name"))
            return None, None if value is None else str(value)

        (from_, from_text), (to, to_text) = ends(before), ends(after)
        item = {
            "field": name, "fieldtype": "jira", "fieldId": name, "from": from_,
            "fromString": from_text, "to": to, "toString": to_text,
        }  # fmt: skip
        return {name: value for name, value in item.items() if value is not None}

    def _new_id(self, kind: str) -> int:
        self._next_id[kind] += 1
        return self._next_id[kind] - 1

    def _user(self, n: int) -> JsonObject:
        account = f"5b10ac8d82e05b22cc7d{n:04d}"
        return {
            "self": f"{self.url}/rest/api/3/user?accountId={account}",
            "accountId": account,
            "accountType": "app" if n == CUSTOMERS - 1 else "atlassian",
            "displayName": f"Person {n}",
            "emailAddress": f"person{n}@example.com",
            "active": n != CUSTOMERS - 2,
            "timeZone": "Europe/Berlin",
        }

    def _status(self, n: int) -> JsonObject:
        return {
            "self": f"{self.url}/rest/api/3/status/{n + 1}",
            "id": str(n + 1),
            "name": STATUS_NAMES[n],
            "description": "",
            "iconUrl": f"{self.url}/images/icons/statuses/{n}.png",
            "statusCategory": _CATEGORIES[n],
        }
