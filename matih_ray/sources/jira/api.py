"""The calls of Jira's REST API v3 that are used, each with its way of paging.

Whole answers are held, a page at a time. An answer without what it must have is a `SourceError`.
"""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zoneinfo import ZoneInfo

from matih_ray.errors import SourceError
from matih_ray.model.value import JsonValue, Value
from matih_ray.sources.http.client import Answer, ApiClient, Request
from matih_ray.sources.http.config import Limits
from matih_ray.sources.jira.jql import ORDER, SECOND, zone_of
from matih_ray.sources.read_ahead import both

Record = dict[str, Any]

ROOT = "rest/api/3"
# The server's own limits; it gives less when it wants to.
IDS_A_PAGE = 5000
ISSUES_A_CALL = 100
CHANGELOG_ISSUES_A_CALL = 1000
CHANGES_A_PAGE = 1000
WORKLOGS_A_CALL = 1000
OBJECTS_A_PAGE = 100
USERS_A_PAGE = 1000
_SPRINT_FIELD = "com.pyxis.greenhopper.jira:gh-sprint"
_IDS = re.compile(r"(?<=/)\d+(?=/|$)")


@dataclass(frozen=True)
class Site:
    """The account's time zone (None if unknown here), and the server's clock in microseconds."""

    zone: ZoneInfo | None
    now: int


class SiteFacts(Value):
    """Where people look at the site, and the id of the field that holds sprints, if it has them."""

    browse_url: str
    sprint_field: str | None = None


class JiraApi:
    """One site, asked with one account."""

    def __init__(self, client: ApiClient, base_url: str, limits: Limits) -> None:
        self._client, self._limits = client, limits
        self._base = base_url.rstrip("/")

    def myself(self, *, max_retries: int | None = None) -> Site:
        """Who asks, where their clock stands, and what the server's own says."""
        answer = self._get(f"{ROOT}/myself", max_retries=max_retries)
        return Site(zone_of(_object(answer, "myself").get("timeZone")), _now(answer))

    @cached_property
    def site(self) -> Site:
        """`myself`, asked once; its clock is the one of that moment."""
        return self.myself()

    @cached_property
    def facts(self) -> SiteFacts:
        """What rows need to know of the site, asked once."""
        browse_url, sprint_field = both(self._browse_url, self._sprints)
        return SiteFacts(browse_url=browse_url or "", sprint_field=sprint_field)

    def _browse_url(self) -> str | None:
        return str(_object(self._get(f"{ROOT}/serverInfo"), "serverInfo").get("baseUrl", ""))

    def version(self) -> str:
        """The server's version, for people."""
        info = _object(self._get(f"{ROOT}/serverInfo", max_retries=0), "serverInfo")
        return f"Jira {info.get('deploymentType', 'Cloud')} {info.get('version', '')}".strip()

    def _sprints(self) -> str | None:
        for field in self._list(f"{ROOT}/field", {}):
            if (field.get("schema") or {}).get("custom") == _SPRINT_FIELD:
                return str(field.get("id"))
        return None

    def projects(self) -> Iterator[Record]:
        """All projects that the account may see, ordered by key."""
        params = {"orderBy": "key", "expand": "description,lead,insight"}
        yield from self._pages(f"{ROOT}/project/search", "values", params)

    def may_browse(self, project_key: str) -> bool:
        """Whether the account may see issues of the project at all."""
        params = {"projectKey": project_key, "permissions": "BROWSE_PROJECTS"}
        answer = _object(self._get(f"{ROOT}/mypermissions", params), "mypermissions")
        browse = (answer.get("permissions") or {}).get("BROWSE_PROJECTS") or {}
        return bool(browse.get("havePermission"))

    def count(self, jql: str) -> int:
        """About how many issues a query finds."""
        answer = self._post(f"{ROOT}/search/approximate-count", {"jql": jql})
        return int(_object(answer, "approximate-count").get("count") or 0)

    def first_updated(self, jql: str) -> str | None:
        """The time of the issue that was changed longest ago."""
        body: dict[str, JsonValue] = {
            "jql": f"{jql} ORDER BY updated ASC",
            "fields": ["updated"],
            "maxResults": 1,
        }
        issues = _list_of(_object(self._post(f"{ROOT}/search/jql", body), "search"), "issues")
        return None if not issues else str((issues[0].get("fields") or {}).get("updated"))

    def issue_ids(self, jql: str) -> Iterator[list[int]]:
        """Ids of issues, a page at a time. Only a missing token ends it: permissions and the
        server's moods make pages short or empty before."""
        token: str | None = None
        for _ in range(self._limits.max_pages):
            body: dict[str, JsonValue] = {
                "jql": f"{jql} {ORDER}",
                "fields": ["id"],
                "maxResults": IDS_A_PAGE,
            }
            if token is not None:
                body["nextPageToken"] = token
            page = _object(self._post(f"{ROOT}/search/jql", body), "search")
            yield [int(issue["id"]) for issue in _list_of(page, "issues")]
            following = page.get("nextPageToken")
            if not following:
                return
            if following == token:
                raise SourceError("search/jql gives the same page again and again")
            token = str(following)
        raise SourceError(f"search/jql has more than limits.maxPages ({self._limits.max_pages})")

    def issues(self, ids: Sequence[int], fields: Sequence[str]) -> list[Record]:
        """Issues by id; those that are gone, or not visible, are left out."""
        body: dict[str, JsonValue] = {
            "issueIdsOrKeys": [str(id_) for id_ in ids],
            "fields": list(fields),
        }
        return _list_of(_object(self._post(f"{ROOT}/issue/bulkfetch", body), "bulkfetch"), "issues")

    def changelogs(self, ids: Sequence[int]) -> Iterator[tuple[str, list[Record]]]:
        """(issue id, history entries); an issue may come in several pieces."""
        token: str | None = None
        for _ in range(self._limits.max_pages):
            body: dict[str, JsonValue] = {
                "issueIdsOrKeys": [str(id_) for id_ in ids],
                "maxResults": CHANGES_A_PAGE,
            }
            if token is not None:
                body["nextPageToken"] = token
            page = _object(self._post(f"{ROOT}/changelog/bulkfetch", body), "changelog")
            for log in _list_of(page, "issueChangeLogs"):
                yield str(log.get("issueId")), _list_of(log, "changeHistories")
            token = page.get("nextPageToken")
            if not token:
                return
        raise SourceError("changelog/bulkfetch has more pages than limits.maxPages")

    def comments(self, issue_id: str, start: int) -> Iterator[Record]:
        """The comments of an issue from a position on."""
        yield from self._pages(f"{ROOT}/issue/{issue_id}/comment", "comments", {}, start)

    def worklog_changes(
        self, feed: str, since_ms: int, until_ms: int
    ) -> Iterator[list[tuple[int, int]]]:
        """(worklog id, time of change in ms) of `since <= time <= until`, a page at a time."""
        for _ in range(self._limits.max_pages):
            page = _object(self._get(f"{ROOT}/worklog/{feed}", {"since": since_ms}), "worklogs")
            changes = [
                (int(change["worklogId"]), int(change["updatedTime"]))
                for change in _list_of(page, "values")
            ]
            yield [change for change in changes if change[1] <= until_ms]
            reached = int(page.get("until") or 0)
            if page.get("lastPage") or reached >= until_ms or reached <= since_ms:
                return
            since_ms = reached
        raise SourceError(f"worklog/{feed} has more pages than limits.maxPages")

    def worklogs(self, ids: Sequence[int]) -> list[Record]:
        """Worklogs by id; those that are gone, or not visible, are left out."""
        answer = self._post(f"{ROOT}/worklog/list", {"ids": list(ids)})
        return _records(answer.body, "worklog/list")

    def users(self) -> Iterator[Record]:
        """All users, apps and customers that the account may see."""
        start = 0
        for _ in range(self._limits.max_pages):
            params = {"startAt": start, "maxResults": USERS_A_PAGE}
            page = self._list(f"{ROOT}/users/search", params)
            yield from page
            if not page:
                return
            # the server counts users that it then leaves out
            start += max(len(page), 1)
        raise SourceError("users/search has more pages than limits.maxPages")

    def statuses(self) -> list[Record]:
        """All statuses that workflows use."""
        return self._list(f"{ROOT}/status", {})

    def sprints(self) -> Iterator[Record]:
        """The sprints of all boards; a sprint may come from several."""
        for board in self._pages("rest/agile/1.0/board", "values", {"type": "scrum"}):
            path = f"rest/agile/1.0/board/{board['id']}/sprint"
            yield from self._pages(path, "values", {})

    def _pages(
        self, path: str, name: str, params: Mapping[str, str | int | bool], start: int = 0
    ) -> Iterator[Record]:
        for _ in range(self._limits.max_pages):
            asked = {**params, "startAt": start, "maxResults": OBJECTS_A_PAGE}
            page = _object(self._get(path, asked), path)
            found = _list_of(page, name)
            yield from found
            start += len(found)
            total = page.get("total")
            is_last = page.get("isLast", total is not None and start >= int(total))
            if is_last or not found:
                return
        raise SourceError(f"{path} has more pages than limits.maxPages")

    def _list(self, path: str, params: Mapping[str, str | int | bool]) -> list[Record]:
        return _records(self._get(path, params).body, path)

    def _get(
        self,
        path: str,
        params: Mapping[str, str | int | bool] | None = None,
        *,
        max_retries: int | None = None,
    ) -> Answer:
        call = f"GET {_IDS.sub('*', path)}"
        request = Request(f"{self._base}/{path}", params or {}, call=call)
        return self._client.fetch(request, max_retries=max_retries)

    def _post(self, path: str, body: Mapping[str, JsonValue]) -> Answer:
        request = Request(f"{self._base}/{path}", {}, body, call=f"POST {path}")
        return self._client.fetch(request)


def _now(answer: Answer) -> int:
    """The server's clock; its header has whole seconds."""
    try:
        date = email.utils.parsedate_to_datetime(answer.headers["Date"])
    except (KeyError, ValueError, TypeError):
        return int(time.time()) * SECOND
    return int(date.timestamp()) * SECOND


def _object(answer: Answer, what: str) -> Record:
    if not isinstance(answer.body, dict):
        raise SourceError(f"{what}: the answer is no object; is this the address of a Jira site?")
    return answer.body


def _list_of(found: Record, name: str) -> list[Record]:
    return _records(found.get(name, []), name)


def _records(found: Any, what: str) -> list[Record]:
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise SourceError(f"{what}: the answer holds no list of objects; is this a Jira site?")
    return found
