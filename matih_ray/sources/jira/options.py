"""What a filter may choose from, as the site has it now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from matih_ray.sources.jira.api import JiraApi, Record

# Of each kind: a person chooses from a list, and a site may have tens of thousands of users.
MAX_OPTIONS = 5000


@dataclass(frozen=True)
class FilterOption:
    """One choice: the value that goes into the filter, and its name for people."""

    value: str
    label: str


@dataclass(frozen=True)
class FilterOptions:
    """The choices for `projectKeys`, `statuses` and `assigneeIds`, ordered by name."""

    projects: tuple[FilterOption, ...]
    statuses: tuple[FilterOption, ...]
    users: tuple[FilterOption, ...]


def filter_options(api: JiraApi) -> FilterOptions:
    """The choices. Statuses go by name, so one name is one choice; apps are nobody's assignee.

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
    return FilterOptions(_ordered(projects), _ordered(statuses), _ordered(users))


def _some(found: Iterable[Record]) -> Iterable[Record]:
    return islice(found, MAX_OPTIONS)


def _ordered(labels: dict[str, str]) -> tuple[FilterOption, ...]:
    options = (FilterOption(value, label) for value, label in labels.items())
    return tuple(sorted(options, key=lambda option: (option.label.casefold(), option.value)))
