"""What connectors to Atlassian Cloud have in common; credentials are not part of it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from matih_ray.model.value import Value
from matih_ray.sources.http.config import Limits, WebAddress

TOKEN_URL = "https://auth.atlassian.com/oauth/token"  # noqa: S105 - an address
# Vendor's advice: few retries, because early ones only make the wait longer.
MAX_RETRIES = 4


class AtlassianConfig(Value):
    """A site of Atlassian Cloud.

    `auth` is `apiToken` (with `user`, the e-mail address; the secret is `apiToken`), `oauth2`
    (a service account: `clientId` and the secret `clientSecret`), or `oauth2Refresh` (an app that a
    person has authorized: in addition the secret `refreshToken`, which is replaced with each use).
    With OAuth the base address is `https://api.atlassian.com/ex/jira/<cloudId>` or
    `…/ex/confluence/<cloudId>`, otherwise the site's own.
    """

    base_url: WebAddress
    auth: Literal["apiToken", "oauth2", "oauth2Refresh"] = "apiToken"
    user: Annotated[str | None, Field(description="E-mail address of the account")] = None
    client_id: str | None = None
    scope: str | None = None
    auth_url: Annotated[
        WebAddress | None, Field(description="Where OAuth's tokens are given; Atlassian's if unset")
    ] = None
    ssl_root_cert: Annotated[
        str | None, Field(description="File of trusted certificates; the system's if unset")
    ] = None
    limits: Limits = Limits(max_retries=MAX_RETRIES)

    @model_validator(mode="after")
    def _complete(self) -> AtlassianConfig:
        if self.auth == "apiToken" and not self.user:
            raise ValueError("apiToken needs a user, the e-mail address of the account")
        if self.auth != "apiToken" and not self.client_id:
            raise ValueError(f"{self.auth} needs a clientId")
        return self
