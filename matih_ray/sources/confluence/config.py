"""A connector as a value; credentials are not part of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from matih_ray.sources.atlassian.config import AtlassianConfig

# The API's own limit of a page.
MAX_PAGE_ROWS = 250
SpaceKey = Annotated[str, Field(pattern=r"^~?[A-Za-z0-9_.:-]{1,255}$")]


class ConfluenceConfig(AtlassianConfig):
    """A site, and which of its spaces to read: all that the account may see unless some are named.

    `reconcile` compares the ids of all pages at each incremental run, a request for 250 pages: that
    is how purged, moved and restored pages are found. Without it only what is in the trash is.
    """

    space_keys: Annotated[tuple[SpaceKey, ...], Field(max_length=MAX_PAGE_ROWS)] = ()
    pages_per_slice: Annotated[int, Field(ge=100, le=500)] = 250
    page_size: Annotated[int, Field(ge=1, le=MAX_PAGE_ROWS)] = MAX_PAGE_ROWS
    # Changes may become visible a little later than their own time says.
    overlap_s: Annotated[float, Field(ge=0, le=86_400)] = 120.0
    reconcile: bool = True
