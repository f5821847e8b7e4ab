"""A Jira site with three projects, what people do to it, and what the tables must then hold."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from typing import Any

from matih_ray.model.ids import EndpointId
from matih_ray.model.value import JsonValue
from matih_ray.testing.devstack.jira import TOKEN, USER, JiraServer
from matih_ray.testing.devstack.jira_site import SPRINT_FIELD
from tests.ray.cdm_lab import Row, Truth, reference

HOUR_MS = 3_600_000
PAGE = 40
Json = dict[str, Any]


class JiraUpstream:
    """SHOP and SITE are selected, PRIV is not."""

    type = "JIRA"
    family = "http.jira"
    units = {
        "jira.changelogs": "cdm.work.status_change",
        "jira.comments": "cdm.work.comment",
        "jira.issue_links": "cdm.work.link",
        "jira.issues": "cdm.work.item",
        "jira.projects": "cdm.work.project",
        "jira.sprints": "cdm.work.sprint",
        "jira.users": "cdm.work.user",
        "jira.worklogs": "cdm.work.worklog",
    }
    secrets = {"apiToken": TOKEN}
    selected = ("SHOP", "SITE")

    def __init__(self, server: JiraServer, clock_h: float, zone: str) -> None:
        self.server = server
        server.do("reset")
        self._now_ms = int((time.time() + clock_h * 3600) * 1000)
        server.do("set", zone_name=zone, page_max=PAGE)
        self._at(0)
        self._departed: set[int] = set()
        self._comments: dict[int, int] = {}
        self._worklogs: list[int] = []
        self._link = 0

    @property
    def config(self) -> dict[str, JsonValue]:
        return {"baseUrl": self.server.url, "user": USER, "limits": {"retryBackoffS": 0.01}}

    @property
    def filter(self) -> dict[str, JsonValue] | None:
        return {"projectKeys": list(self.selected)}

    def fill(self, size: int) -> None:
        """So many issues in SHOP, and some elsewhere, with all that belongs to issues."""
        for project, count in (("SHOP", size), ("SITE", 30), ("PRIV", 10)):
            self.server.do("generate", project=project, count=count)
        self._pass_time()
        do, shop = self.server.do, self._ids("SHOP")
        sprint = do("add_sprint", name="Sprint 1")
        do("edit", id_=shop[0], fields={"status": "In Progress", SPRINT_FIELD: [sprint]})
        do("edit", id_=shop[1], fields={"summary": 'quo"tes, commas\nand lines', "labels": []})
        for n in (0, 5, 7, *[6] * 22):
            self._comments[n] = do("comment", id_=shop[n], text=f"about {n}\nmore")
        do("comment", id_=self._ids("PRIV")[0], text="not to be seen yet")
        for n in (1, 2, 4, 5):
            self._worklogs.append(do("log_work", id_=shop[n], seconds=60 * n))
        do("log_work", id_=self._ids("PRIV")[0], seconds=60)
        do("link", source=shop[0], target=shop[1])
        do("link", source=shop[2], target=self._ids("PRIV")[1])
        self._link = do("link", source=shop[10], target=shop[11])
        self._pass_time()

    def change(self) -> None:
        """Change, move and delete."""
        self._pass_time()
        do, shop, priv = self.server.do, self._ids("SHOP"), self._ids("PRIV")
        do("edit", id_=shop[0], fields={"summary": "edited", "status": "Done"})
        do("edit", id_=shop[2], fields={"duedate": "2027-02-28", "timespent": 90, "assignee": None})
        do("move", id_=shop[3], project="SITE")
        do("move", id_=shop[4], project="PRIV")
        do("delete", id_=shop[5])
        do("move", id_=priv[0], project="SHOP")
        do("add_issue", project="SHOP", summary="new", number=4)
        do("comment", id_=shop[8], text="a comment")
        do("delete_comment", id_=shop[7], comment_id=self._comments[7])
        do("log_work", id_=shop[6], seconds=30)
        do("delete_worklog", id_=self._worklogs[0])
        do("link", source=shop[8], target=shop[9])
        do("unlink", link_id=self._link)
        sprint = do("add_sprint", name="Sprint 2")
        do("edit", id_=shop[12], fields={SPRINT_FIELD: [sprint]})
        do("rename_project", key="SITE", name="The site")
        # of these the API does not tell what went with them
        self._departed = {shop[n] for n in (4, 5, 7, 10, 11)} | {priv[0]}
        self._pass_time()

    def storm(self) -> None:
        """Refuse many calls."""
        self.server.fault(".*", 429, {"Retry-After": "0"}, times=60, every=2)

    def edit_while_paging(self, *, on: bool) -> None:
        """Edit what was on a page whenever the next one is asked for."""
        self.server.do("set", edit_while_paging=on)
        self._pass_time()

    def departed(self, endpoint_id: EndpointId) -> frozenset[str]:
        """Issues some of whose parts are gone, or came along, and no call tells of it."""
        ids = (reference("cdm.work.item", endpoint_id, id_) for id_ in self._departed)
        return frozenset(str(id_) for id_ in ids)

    def truth(self, endpoint_id: EndpointId) -> Truth:
        """See `Upstream`."""
        site = self.server.do("truth")
        issues = [i for i in site["issues"] if i["fields"]["project"]["key"] in self.selected]
        chosen = {issue["id"] for issue in issues}
        refer = _References(endpoint_id)
        return {
            "cdm.work.item": {i["id"]: self._item(i, refer) for i in issues},
            "cdm.work.project": {
                p["id"]: _project(p, refer) for p in site["projects"] if p["key"] in self.selected
            },
            "cdm.work.user": {u["accountId"]: _user(u) for u in site["users"]},
            "cdm.work.sprint": {str(s["id"]): _sprint(s) for s in site["sprints"]},
            "cdm.work.comment": {
                c["id"]: _comment(c, id_, refer) for id_ in chosen for c in site["comments"][id_]
            },
            "cdm.work.worklog": {
                w["id"]: _worklog(w, refer) for w in site["worklogs"] if w["issueId"] in chosen
            },
            "cdm.work.status_change": {
                source_id: row
                for id_ in chosen
                for source_id, row in _changes(site["histories"][id_], id_, refer)
            },
            "cdm.work.link": dict(_links(issues, refer)),
        }

    def _item(self, issue: Json, refer: _References) -> Row:
        fields = issue["fields"]
        sprints = fields[SPRINT_FIELD]
        return {
            "source_version": _ms(fields["updated"]),
            "project_cdm_id": refer("project", fields["project"]["id"]),
            "item_key": issue["key"],
            "item_type": fields["issuetype"]["name"],
            "summary": fields["summary"],
            "description": _text(fields["description"]),
            "status": fields["status"]["name"],
            "status_category": fields["status"]["statusCategory"]["key"],
            "priority": fields["priority"]["name"],
            "assignee_cdm_id": refer.user(fields["assignee"]),
            "reporter_cdm_id": refer.user(fields["reporter"]),
            "creator_cdm_id": refer.user(fields["creator"]),
            "sprint_cdm_ids": sprints and [refer("sprint", sprint["id"]) for sprint in sprints],
            "labels": fields["labels"],
            "components": [],
            "fix_versions": [version["name"] for version in fields["fixVersions"]],
            "affects_versions": [],
            "original_estimate_s": fields["timeoriginalestimate"],
            "time_spent_s": fields["timespent"],
            "due_on": fields["duedate"] and dt.date.fromisoformat(fields["duedate"]),
            "created_at": _time(fields["created"]),
            "updated_at": _time(fields["updated"]),
            "url": f"{self.server.url}/browse/{issue['key']}",
        }

    def _ids(self, project: str) -> list[int]:
        issues = self.server.issues().values()
        return sorted(int(i["id"]) for i in issues if i["fields"]["project"]["key"] == project)

    def _pass_time(self) -> None:
        self._at(1)

    def _at(self, hours: float) -> None:
        self._now_ms += int(hours * HOUR_MS)
        self.server.do("set", frozen_ms=self._now_ms)


class _References:
    def __init__(self, endpoint_id: EndpointId) -> None:
        self._endpoint_id = endpoint_id

    def __call__(self, kind: str, source_id: object) -> str | None:
        return reference(f"cdm.work.{kind}", self._endpoint_id, source_id)

    def user(self, user: Json | None) -> str | None:
        return self("user", user and user["accountId"])


def _time(text: str) -> dt.datetime:
    return dt.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")


def _ms(text: str) -> int:
    return round(_time(text).timestamp() * 1000)


def _text(document: Json) -> str:
    return "\n".join(part["content"][0]["text"] for part in document["content"])


def _project(project: Json, refer: _References) -> Row:
    return {
        "project_key": project["key"],
        "name": project["name"],
        "description": project["description"],
        "project_type": project["projectTypeKey"],
        "lead_cdm_id": refer.user(project["lead"]),
        "is_private": project["isPrivate"],
        "is_archived": False,
    }


def _user(user: Json) -> Row:
    return {
        "display_name": user["displayName"],
        "email": user["emailAddress"],
        "account_type": user["accountType"],
        "is_active": user["active"],
        "time_zone": user["timeZone"],
    }


def _sprint(sprint: Json) -> Row:
    return {
        "name": sprint["name"],
        "state": sprint["state"],
        "goal": sprint["goal"],
        "board_id": str(sprint["originBoardId"]),
        "started_at": _time(sprint["startDate"]),
        "ended_at": _time(sprint["endDate"]),
    }


def _comment(comment: Json, issue_id: str, refer: _References) -> Row:
    return {
        "source_version": _ms(comment["updated"]),
        "item_cdm_id": refer("item", issue_id),
        "author_cdm_id": refer.user(comment["author"]),
        "editor_cdm_id": refer.user(comment["updateAuthor"]),
        "body": _text(comment["body"]),
        "is_internal": not comment["jsdPublic"],
        "created_at": _time(comment["created"]),
        "updated_at": _time(comment["updated"]),
    }


def _worklog(worklog: Json, refer: _References) -> Row:
    return {
        "source_version": _ms(worklog["updated"]),
        "item_cdm_id": refer("item", worklog["issueId"]),
        "author_cdm_id": refer.user(worklog["author"]),
        "comment": _text(worklog["comment"]),
        "started_at": _time(worklog["started"]),
        "time_spent_s": worklog["timeSpentSeconds"],
        "created_at": _time(worklog["created"]),
        "updated_at": _time(worklog["updated"]),
    }


def _changes(histories: list[Json], issue_id: str, refer: _References) -> Iterator[tuple[str, Row]]:
    for history in histories:
        for position, item in enumerate(history["items"]):
            row = {
                "source_version": _ms(history["created"]),
                "item_cdm_id": refer("item", issue_id),
                "author_cdm_id": refer.user(history["author"]),
                "field": item["field"],
                "field_id": item["fieldId"],
                "from_id": item.get("from"),
                "from_value": item.get("fromString"),
                "to_id": item.get("to"),
                "to_value": item.get("toString"),
                "changed_at": _time(history["created"]),
            }
            yield f"{history['id']}:{position}", row


def _links(issues: list[Json], refer: _References) -> Iterator[tuple[str, Row]]:
    # a link is at both its ends, and as new as the newer of them
    for issue in sorted(issues, key=lambda issue: _ms(issue["fields"]["updated"])):
        for link in issue["fields"]["issuelinks"]:
            away = "outwardIssue" in link
            ends = [issue["id"], link["outwardIssue" if away else "inwardIssue"]["id"]]
            source, target = ends if away else reversed(ends)
            yield (
                link["id"],
                {
                    "source_version": _ms(issue["fields"]["updated"]),
                    "from_item_cdm_id": refer("item", source),
                    "to_item_cdm_id": refer("item", target),
                    "link_type": link["type"]["name"],
                    "phrase": link["type"]["outward"],
                },
            )
