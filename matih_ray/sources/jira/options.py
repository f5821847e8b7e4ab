"""What a filter may choose from, as the site has it now."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from matih_ray.sources.base import FilterOption
from matih_ray.sources.jira.api import JiraApi, Record

# Of each kind: a person chooses from a list, and a site may have tens of thousands of users.
MAX_OPTIONS = 5000


def filter_options(api: JiraApi) -> dict[str, tuple[FilterOption, ...]]:
    """The choices for each field of `JiraFilter`.

    Statuses go by name, so one name is one choice; apps are nobody's assignee.

    Raises:
        SourceError: The site cannot be read.
    """
    projects = {str(found["key"]): str(found.get("name")) for found in _some(api.projects())}
    statuses = {str(found["name"]): str(found["name"]) for found in _some(api.statuses())}
    users = {
        str(found["accountId"]): str(found.get("displayName"))
        for found in _some(api.users())
        if found.get("accountType") == "atlassian" and found.get("active", True)
    }
    return {
        "projectKeys": _ordered(projects),
        "statuses": _ordered(statuses),
        "assigneeIds": _ordered(users),
    }


def _some(found: Iterable[Record]) -> Iterable[Record]:
    return islice(found, MAX_OPTIONS)


def _ordered(labels: dict[str, str]) -> tuple[FilterOption, ...]:
    options = (FilterOption(value, label) for value, label in labels.items())
    return tuple(sorted(options, key=lambda option: (option.label.casefold(), option.value)))
