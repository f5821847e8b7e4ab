"""Confluence Cloud (`http.confluence`): spaces, pages and what belongs to them, through API v2.

    source             the endpoint
    config             a connector as a value
    schemas            the Arrow schema of each unit: the contract that CDM mappers are written for
    rows               Confluence's objects as rows of those schemas
    site               the API's calls, each with its way of paging
    sweep              what has changed in a space, and what is there
    planning, slices   slices by space and window of time; what a checkpoint keeps
    storage            links in the storage format
    reading            slices to rows

The API cannot be asked for what changed since a time. So a space's list is read newest first until
it is older than the last run, and the ids of all pages are compared with those of the last run.
Why ids first and pages then: lists shift while pages are edited, ids do not.

May import `sources.base`, `sources.atlassian`, `sources.declared`, `sources.http`, `model`,
`errors`; never Ray.
"""

from matih_ray.sources.confluence.source import ConfluenceSource

__all__ = ["ConfluenceSource"]
