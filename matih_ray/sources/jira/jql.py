"""Queries in JQL, and times as JQL reads them. Pure.

A time in JQL has minutes and means the time zone of the account that asks. So bounds are widened to
whole minutes, and beyond the hour that a clock shows twice when summer time ends: JQL does not say
which of the two it means. What a query finds too much is left out by the exact time of each issue.
"""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from matih_ray.errors import ValidationError
from matih_ray.sources.http.json_values import micros
from matih_ray.sources.jira.config import JiraFilter

SECOND = 1_000_000
MINUTE = 60 * SECOND
# Offsets of time zones lie between -12 and +14 hours, so a day covers them all.
_ANY_ZONE = dt.timedelta(days=1)
_STEP = dt.timedelta(hours=1)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
# The same issue at the same place in every page: neither changes.
ORDER = "ORDER BY created ASC, key ASC"


def zone_of(name: str | None) -> ZoneInfo | None:
    """A time zone by its name; None if this machine does not know it."""
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError):
        return None


def text(value: str) -> str:
    """A text in JQL, quoted."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c for c in escaped if c.isprintable()) + '"'


def at_or_before(position: int, zone: ZoneInfo | None) -> str:
    """The last minute that JQL cannot take for one after a time in microseconds since 1970."""
    moment = _EPOCH + dt.timedelta(microseconds=position)
    if zone is None:
        return _written(moment - _ANY_ZONE)
    while _is_twice(moment, zone):
        moment -= _STEP
    return _written(moment.astimezone(zone))


def after(position: int, zone: ZoneInfo | None) -> str:
    """The first minute that JQL cannot take for one at or before a time."""
    moment = _EPOCH + dt.timedelta(microseconds=position + MINUTE)
    if zone is None:
        return _written(moment + _ANY_ZONE)
    while _is_twice(moment, zone):
        moment += _STEP
    return _written(moment.astimezone(zone))


def _is_twice(moment: dt.datetime, zone: ZoneInfo) -> bool:
    local = moment.astimezone(zone)
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


def _written(local: dt.datetime) -> str:
    return f'"{local:%Y/%m/%d %H:%M}"'


def selection(filter_: JiraFilter) -> list[str]:
    """The clauses of a filter but for projects and times."""
    clauses = []
    if filter_.statuses:
        clauses.append(f"status in ({', '.join(map(text, filter_.statuses))})")
    if filter_.assignee_ids:
        clauses.append(f"assignee in ({', '.join(map(text, filter_.assignee_ids))})")
    return clauses


def issues(
    project_key: str,
    filter_: JiraFilter,
    zone: ZoneInfo | None,
    lower: int | None = None,
    upper: int | None = None,
) -> str:
    """A query that finds at least the selected issues of a project with `lower < updated <= upper`.

    Args:
        project_key: The project.
        filter_: What else must hold.
        zone: The account's.
        lower: Microseconds since 1970; None without a bound.
        upper: The same.
    """
    clauses = [f"project = {text(project_key)}", *selection(filter_)]
    if lower is not None:
        clauses.append(f"updated >= {at_or_before(lower, zone)}")
    if upper is not None:
        clauses.append(f"updated < {after(upper, zone)}")
    return " AND ".join(clauses)


def position(text_: str, what: str) -> int:
    """A time with an offset as microseconds since 1970.

    Raises:
        ValidationError: It is none; `what` names the field.
    """
    try:
        found, has_offset, _ = micros(text_)
    except ValueError:
        has_offset = False
    if not has_offset:
        raise ValidationError(f"{what} is no ISO 8601 time with an offset", field=what)
    return found


def stored(position_: int) -> str:
    """A position as checkpoints keep it."""
    moment = _EPOCH + dt.timedelta(microseconds=position_)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
