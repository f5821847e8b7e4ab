"""Jira Cloud (`http.jira`): projects, issues and what belongs to them, through REST API v3.

    source             the endpoint
    config             a connector as a value
    schemas            the Arrow schema of each unit: the contract that CDM mappers are written for
    rows               JSON objects to rows of those schemas
    api                the API's calls, each with its way of paging
    jql                queries; times as JQL reads them
    selection          the caller's filter
    planning, slices   slices by project and window of `updated`; what a checkpoint keeps
    windows            a time in pieces of about as many issues each
    reconciling        deletions, found by comparing ids
    known_ids          many ids in few characters
    reading            slices to rows
    options            what a filter may choose from

Why ids first and objects then: a search returns thousands of ids in one answer but few whole
issues, and its pages move while issues change; ids do not. Why times of JQL are never trusted: they
have minutes only and mean the account's time zone, so a query asks for more than the window, and
what does not belong is left out by the exact `updated` of each issue.

May import `sources.base` and `batching`, `sources.atlassian`, `sources.http`,
`sources.documents.exact_json`, `provider_services`, `read_ahead`, `slices`, `model`, `errors`;
never Ray.
"""

from matih_ray.sources.jira.source import JiraSource

__all__ = ["JiraSource"]
