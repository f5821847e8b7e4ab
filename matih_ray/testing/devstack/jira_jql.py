"""As much of JQL as is asked for, read as Jira reads it: minutes, in the account's time zone."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from operator import itemgetter
from typing import Any
from zoneinfo import ZoneInfo

from matih_ray.testing.devstack.jira_site import Site

_ORDER = re.compile(r"\s+ORDER BY\s+(.+)$", re.IGNORECASE)
_IN = re.compile(r"(project|status|assignee)\s+(?:in\s+\((.+)\)|=\s+(\"(?:[^\"\\]|\\.)*\"))")
_TIME = re.compile(r"(updated|created)\s*(>=|>|<=|<)\s*\"(\d{4}/\d\d/\d\d \d\d:\d\d)\"")
_TEXT = re.compile(r"\"((?:[^\"\\]|\\.)*)\"")


class JqlError(Exception):
    """A query that Jira refuses with 400."""


def find(site: Site, query: str) -> list[dict[str, Any]]:
    """The issues that a query finds, in its order.

    Raises:
        JqlError: It is not understood, unbounded, or names a project that is not there.
    """
    order = _ORDER.search(query)
    conditions = query[: order.start()] if order else query
    if not conditions.strip():
        raise JqlError("Unbounded JQL queries are not allowed here.")
    tests = [_test(site, clause.strip()) for clause in conditions.split(" AND ")]
    found = [issue for issue in _visible(site) if all(test(issue) for test in tests)]
    names = order.group(1) if order else "created DESC"
    for name in reversed(names.split(",")):
        field, _, direction = name.strip().partition(" ")
        by = itemgetter("id" if field == "key" else field)
        found.sort(key=by, reverse=direction.upper() == "DESC")
    return found


def _visible(site: Site) -> Iterator[dict[str, Any]]:
    return (i for i in site.issues.values() if i["project"] not in site.forbidden | site.hidden)


def _test(site: Site, clause: str) -> Callable[[dict[str, Any]], bool]:
    if match := _IN.fullmatch(clause):
        values = set(_texts(match.group(2) or match.group(3)))
        return _member(site, match.group(1), values)
    if match := _TIME.fullmatch(clause):
        field, operator, text = match.groups()
        bound = instant_ms(text, site.zone)
        if operator in (">", "<="):
            raise JqlError(f"operator {operator} is not supported by this test server")
        if operator == ">=":
            return lambda issue: bool(issue[field] >= bound)
        return lambda issue: bool(issue[field] < bound)
    raise JqlError(f"Error in the JQL Query: '{clause}' is not understood.")


def instant_ms(text: str, zone: ZoneInfo) -> int:
    """What a time in JQL means to an account in a zone."""
    local = dt.datetime.strptime(text, "%Y/%m/%d %H:%M").replace(tzinfo=zone)
    return int(local.timestamp() * 1000)


def _member(site: Site, field: str, values: set[str]) -> Callable[[dict[str, Any]], bool]:
    if field == "project":
        visible = {key for key in site.projects if key not in site.hidden}
        for value in sorted(values - visible):
            raise JqlError(f"The value '{value}' does not exist for the field 'project'.")
        return lambda issue: issue["project"] in values
    if field == "status":
        known = {s["name"] for s in site.statuses} | {s["id"] for s in site.statuses}
        for value in sorted(values - known):
            raise JqlError(f"The value '{value}' does not exist for the field 'status'.")
        return lambda issue: bool(
            values & {issue["fields"]["status"]["name"], issue["fields"]["status"]["id"]}
        )
    return lambda issue: ((issue["fields"]["assignee"] or {}).get("accountId")) in values


def _texts(listed: str) -> list[str]:
    return [re.sub(r"\\(.)", r"\1", text) for text in _TEXT.findall(listed)]
