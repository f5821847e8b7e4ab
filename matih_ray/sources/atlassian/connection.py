"""Connections to a site: credentials, the tenant's governor, and limits, put together."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from matih_ray.errors import ValidationError
from matih_ray.sources.atlassian.config import TOKEN_URL, AtlassianConfig
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.http.auth import Authorization
from matih_ray.sources.http.client import ApiClient, Server
from matih_ray.sources.http.config import Auth
from matih_ray.sources.http.refreshing import REFRESH_TOKEN, RefreshedTokens
from matih_ray.sources.provider_services import ProcessSecrets

SECRET_FIELDS = ("apiToken", "clientSecret", REFRESH_TOKEN)


def connect(spec: EndpointSpec, config: AtlassianConfig) -> ApiClient:
    """A client for the site; nothing is connected yet.

    Raises:
        ValidationError: A secret is missing, or the root certificates cannot be used.
    """
    server = Server(
        url=config.base_url,
        headers={},
        auth=_auth(config),
        auth_url=config.auth_url or TOKEN_URL,
        ssl_root_cert=config.ssl_root_cert,
        limits=config.limits,
        host_policy=spec.host_policy,
        governor=spec.services.governor,
        authorization=_refreshed(spec, config) if config.auth == "oauth2Refresh" else None,
    )
    secrets = {**spec.secrets, "password": spec.secrets.get("apiToken", "")}
    if config.auth == "apiToken" and not secrets["password"]:
        raise ValidationError("the secret apiToken is missing", field="secrets.apiToken")
    return ApiClient(server, secrets)


def _auth(config: AtlassianConfig) -> Auth:
    if config.auth == "apiToken":
        return Auth(kind="basic", user=config.user)
    if config.auth == "oauth2":
        return Auth(kind="oauth2", client_id=config.client_id, scope=config.scope)
    return Auth()


def _refreshed(
    spec: EndpointSpec, config: AtlassianConfig
) -> Callable[[httpx.BaseTransport, float], Authorization]:
    if not spec.secrets.get("clientSecret"):
        raise ValidationError("the secret clientSecret is missing", field="secrets.clientSecret")
    if not spec.secrets.get(REFRESH_TOKEN):
        raise ValidationError(
            f"the secret {REFRESH_TOKEN} is missing", field=f"secrets.{REFRESH_TOKEN}"
        )
    keeper = spec.services.secrets or ProcessSecrets(spec.secrets)
    form = {"client_id": config.client_id or "", "client_secret": spec.secrets["clientSecret"]}
    if config.scope is not None:
        form["scope"] = config.scope

    def authorization(transport: httpx.BaseTransport, timeout_s: float) -> Authorization:
        return RefreshedTokens(
            name=spec.endpoint_id,
            token_url=config.auth_url or TOKEN_URL,
            form=form,
            keeper=keeper,
            turns=spec.services.turns,
            transport=transport,
            timeout_s=timeout_s,
        )

    return authorization
