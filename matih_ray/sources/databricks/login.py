"""What a session authenticates with: a token, or what client credentials are exchanged for.

The client gets OAuth tokens for machines by another of the vendor's libraries only; here they come
from the workspace's own endpoint (https://docs.databricks.com/dev-tools/auth/oauth-m2m), by the
requests that web APIs are asked with, and so from addresses that were checked.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from matih_ray.errors import ConfigurationError, ValidationError
from matih_ray.sources.databricks.config import DatabricksConfig
from matih_ray.sources.guarded_http import GuardedTransport
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.http.auth import ClientCredentials
from matih_ray.sources.http.config import Auth

SECRET_FIELDS = ("token", "clientSecret")
TOKEN_PATH = "/oidc/v1/token"  # noqa: S105 a path
SCOPE = "all-apis"


@dataclass(frozen=True)
class Login:
    """`headers` makes those of each request, and connects on its first use if it has to; `close`
    ends that connection. Secrets are left out of `repr`."""

    headers: Callable[[], dict[str, str]] = field(repr=False)
    close: Callable[[], None] = field(repr=False, default=lambda: None)


def login_of(config: DatabricksConfig, secrets: Mapping[str, str], policy: HostPolicy) -> Login:
    """What the secrets of a connector mean.

    Raises:
        ConfigurationError: The file of trusted certificates cannot be used.
        ValidationError: There is neither a token nor a client id with its secret.
    """
    token, secret = secrets.get("token"), secrets.get("clientSecret")
    if token:
        if not (token.isascii() and token.isprintable()):
            raise ValidationError(
                "the secret token has characters that no header can hold", field="secrets.token"
            )
        return Login(lambda: {"Authorization": f"Bearer {token}"})
    if secret and config.client_id is not None:
        transport = GuardedTransport(policy, verify=_trusted(config), trust_env=False)
        grant = ClientCredentials(
            Auth(kind="oauth2", client_id=config.client_id, scope=SCOPE),
            config.origin + TOKEN_PATH,
            secret,
            transport,
            float(config.connect_timeout_s),
        )
        return Login(lambda: dict(grant.headers()), transport.close)
    raise ValidationError(
        "a Databricks SQL connector needs the secret token, or clientSecret together with clientId",
        field="secrets.token",
    )


def _trusted(config: DatabricksConfig) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=config.ssl_root_cert)
    except OSError as error:  # also ssl.SSLError, for a file that is not PEM
        raise ConfigurationError(
            f"cannot use the root certificates of {config.ssl_root_cert}: "
            f"{error.strerror or error}; it must be a PEM file",
            path=config.ssl_root_cert,
        ) from None
