"""OneDrive and SharePoint document libraries (`http.onedrive`), through Microsoft Graph's delta.

    source             the endpoint
    config             a connector as a value
    schemas            the Arrow schema of each unit: the contract that CDM mappers are written for
    rows               Graph's objects as rows of those schemas
    graph              the API's calls, each with its way of paging
    feed               a drive's delta, gone through once to plan
    inventory          what is known of a drive's items from one run to the next
    planning, slices   slices of pages; what a checkpoint keeps
    reading            slices to rows

Why delta and never listings: it is the only way that Graph documents to see everything once while
it changes. Why an inventory is kept: delta tells of a renamed folder and not of what is in it, and
nothing of what was deleted while a link was too old.

May import `sources.base`, `sources.declared`, `sources.http`, `model`, `errors`; never Ray.
"""

from matih_ray.sources.onedrive.source import OneDriveSource

__all__ = ["OneDriveSource"]
