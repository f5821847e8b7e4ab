"""A Jira connector and the caller's filter, as values."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from matih_ray.model.value import Value
from matih_ray.sources.atlassian.config import AtlassianConfig


class JiraConfig(AtlassianConfig):
    """A Jira Cloud site.

    `overlap_s` is how far below the last run's end an incremental run reads again: the search index
    lags behind, and rows that the table has are dropped. `deletions` compares the ids of all
    selected issues with those of the last run, in each incremental run.
    """

    overlap_s: Annotated[int, Field(ge=120, le=86_400)] = 300
    deletions: bool = True


class JiraFilter(Value):
    """What to select; all that is given must hold. `updated_from` is an ISO 8601 time with an
    offset: what was not changed since is not loaded."""

    project_keys: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    statuses: Annotated[tuple[str, ...], Field(max_length=500)] = ()
    assignee_ids: Annotated[tuple[str, ...], Field(max_length=500)] = ()
    updated_from: str | None = None
