"""With what the connector logs in, never with this machine's own credentials."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession, Request
from google.oauth2.credentials import Credentials as TokenCredentials
from google.oauth2.service_account import Credentials as ServiceAccount

from matih_ray.errors import AuthenticationFailedError
from matih_ray.sources.bigquery.config import BigQueryConfig
from matih_ray.sources.guarded_requests import guarded_session
from matih_ray.sources.host_policy import HostPolicy

# What queries ask for; the account's roles are what limits it.
SCOPE = "https://www.googleapis.com/auth/bigquery"


class BigQueryHttp(AuthorizedSession):  # type: ignore[misc]  # untyped
    """HTTP to checked addresses, with the configured times in place of the client's, which raises
    them to minutes and knows none for connecting."""

    def __init__(
        self, config: BigQueryConfig, credentials: Credentials, policy: HostPolicy
    ) -> None:
        # tokens are asked for at an address that is part of the key, so it is checked as well
        tokens = Request(guarded_session(policy, config.ssl_root_cert))
        super().__init__(credentials, auth_request=tokens)
        guarded = guarded_session(policy, config.ssl_root_cert)
        self.trust_env, self.verify = guarded.trust_env, guarded.verify
        for scheme, adapter in guarded.adapters.items():
            self.mount(scheme, adapter)
        self._connect_s, self._read_s = config.connect_timeout_s, config.read_timeout_s

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        """Send a request; a shorter time than the configured one is kept."""
        asked = options.get("timeout")
        read_s = min(asked, self._read_s) if isinstance(asked, int | float) else self._read_s
        return super().request(
            method, url, *args, **{**options, "timeout": (self._connect_s, read_s)}
        )


def credentials_of(config: BigQueryConfig, secrets: Mapping[str, str]) -> Credentials:
    """The connector's credentials.

    Raises:
        AuthenticationFailedError: It has none that can be used; no part of one is repeated.
    """
    if config.anonymous:
        return AnonymousCredentials()
    key, token = (secrets.get(name) for name in ("serviceAccountKey", "accessToken"))
    if token:
        return TokenCredentials(token)
    if not key:
        raise AuthenticationFailedError(
            f"the connector to {config.project_id} needs a serviceAccountKey or an accessToken"
        )
    try:
        return ServiceAccount.from_service_account_info(json.loads(key), scopes=[SCOPE])
    except (ValueError, TypeError, AttributeError, GoogleAuthError):
        raise AuthenticationFailedError(
            "serviceAccountKey is not the JSON of a service account's key; paste the whole file"
        ) from None
