"""A connector as a value; credentials are not part of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from matih_ray.model.value import Value
from matih_ray.sources.http.config import Limits, WebAddress

# An id goes into a path; what would leave its place there is none.
_Id = Annotated[str, Field(pattern=r"^[^/?#%\s\\]{1,400}$")]
# Drives of one connector; each costs a request before anything is read.
MAX_OWNERS = 5000


class OneDriveConfig(Value):
    """An app registration with application permissions (Files.Read.All), and whose drives to read.

    `client_secret` is the secret. A site is named as Graph does: `contoso.sharepoint.com,<id>,<id>`
    or its id alone. `graph_url` and `login_url` differ in national clouds.
    """

    directory_id: Annotated[_Id, Field(description="The tenant (directory) of Microsoft Entra")]
    client_id: _Id
    drives: Annotated[tuple[_Id, ...], Field(max_length=MAX_OWNERS)] = ()
    users: Annotated[tuple[_Id, ...], Field(max_length=MAX_OWNERS)] = ()
    groups: Annotated[tuple[_Id, ...], Field(max_length=MAX_OWNERS)] = ()
    sites: Annotated[tuple[_Id, ...], Field(max_length=MAX_OWNERS)] = ()
    graph_url: WebAddress = "https://graph.microsoft.com/v1.0"
    login_url: WebAddress = "https://login.microsoftonline.com"
    ssl_root_cert: str | None = None
    # Graph's own default is 200 and larger wishes are cut.
    page_size: Annotated[int, Field(ge=1, le=1000)] = 200
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _something_to_read(self) -> OneDriveConfig:
        if not (self.drives or self.users or self.groups or self.sites):
            raise ValueError("name drives, or users, groups or sites whose drives are to be read")
        return self
