"""How connectors to Google's services log in, and how their requests are made.

Shared by `bigquery` and `files.gcs`: with a credential of the connector's, never with this
machine's own, and over connections to checked addresses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2.credentials import Credentials as TokenCredentials
from google.oauth2.service_account import Credentials as ServiceAccount

from matih_ray.errors import AuthenticationFailedError, ValidationError
from matih_ray.sources.guarded_requests import guarded_session
from matih_ray.sources.host_policy import HostPolicy

SECRET_FIELDS = ("serviceAccountKey", "accessToken")


class GuardedGoogleHttp(AuthorizedSession):  # type: ignore[misc]  # untyped
    """Google's HTTP session over connections to checked addresses."""

    def __init__(
        self, credentials: Credentials, policy: HostPolicy, ssl_root_cert: str | None
    ) -> None:
        # tokens are asked for at an address that is part of the key, so it is checked as well
        tokens = Request(guarded_session(policy, ssl_root_cert))
        super().__init__(credentials, auth_request=tokens)
        guarded = guarded_session(policy, ssl_root_cert)
        self.trust_env, self.verify = guarded.trust_env, guarded.verify
        for scheme, adapter in guarded.adapters.items():
            self.mount(scheme, adapter)


def refuse_two_credentials(secrets: Mapping[str, str]) -> None:
    """Raise `ValidationError` if a connector has a key and a token: which one counts is unclear."""
    if all(secrets.get(name) for name in SECRET_FIELDS):
        raise ValidationError(
            "give serviceAccountKey or accessToken, not both", field="credentials.accessToken"
        )


def google_credentials(
    secrets: Mapping[str, str], scope: str, where: str, *, anonymous: bool
) -> Credentials:
    """The connector's credentials. `where` names what it connects to, in errors.

    Raises:
        AuthenticationFailedError: It has none that can be used; no part of one is repeated.
    """
    if anonymous:
        return AnonymousCredentials()
    key, token = (secrets.get(name) for name in SECRET_FIELDS)
    if token:
        return TokenCredentials(token)
    if not key:
        raise AuthenticationFailedError(
            f"the connector to {where} needs a serviceAccountKey or an accessToken"
        )
    try:
        return ServiceAccount.from_service_account_info(json.loads(key), scopes=[scope])
    except (ValueError, TypeError, AttributeError, GoogleAuthError):
        raise AuthenticationFailedError(
            "serviceAccountKey is not the JSON of a service account's key; paste the whole file"
        ) from None
