"""Credentials, and the transport that puts them into requests at the last moment.

Nothing above the transport ever sees a credential: neither the request that httpx logs at INFO, nor
the one that its exceptions carry. Credentials go to the API's own origin only.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from matih_ray.errors import AuthenticationFailedError, ValidationError
from matih_ray.sources.http.config import Auth
from matih_ray.sources.http.failures import of_exception, of_status, shown

SECRET_FIELDS = ("token", "password", "apiKey", "clientSecret")
# A token is renewed so long before its end, for clocks that differ and requests under way.
EXPIRY_MARGIN_S = 30.0
# RFC 6749 §5.1 only recommends `expires_in`.
DEFAULT_LIFETIME_S = 300.0
_MAX_GRANT_BYTES = 1024 * 1024


class Authorization(Protocol):
    """What authenticates requests."""

    def headers(self) -> Mapping[str, str]: ...

    def params(self) -> Mapping[str, str]: ...

    def forget(self) -> bool:
        """Drop what was got so far because the API refused it; False if there is nothing else."""


class Fixed:
    """The same headers and parameters for every request."""

    def __init__(self, headers: Mapping[str, str], params: Mapping[str, str]) -> None:
        self._headers, self._params = headers, params

    def headers(self) -> Mapping[str, str]:
        return self._headers

    def params(self) -> Mapping[str, str]:
        return self._params

    def forget(self) -> bool:
        return False


class ClientCredentials:
    """OAuth 2.0 client credentials (RFC 6749 §4.4): a bearer token that is renewed in time."""

    def __init__(
        self, auth: Auth, url: str, secret: str, transport: httpx.BaseTransport, timeout_s: float
    ) -> None:
        self._auth, self._url, self._secret = auth, url, secret
        self._transport, self._timeout_s = transport, timeout_s
        self._token: str | None = None
        self._expires_at = 0.0

    def headers(self) -> Mapping[str, str]:
        """The token as a header.

        Raises:
            AuthenticationFailedError: The authorization server gives none.
            SourceError: It cannot be reached.
        """
        if self._token is None or time.monotonic() >= self._expires_at:
            self._grant()
        return {"Authorization": f"Bearer {self._token}"}

    def params(self) -> Mapping[str, str]:
        return {}

    def forget(self) -> bool:
        had, self._token = self._token is not None, None
        return had

    def _grant(self) -> None:
        form = {"grant_type": "client_credentials"}
        if self._auth.scope is not None:
            form["scope"] = self._auth.scope
        basic = _basic(self._auth.client_id or "", self._secret)
        grant = granted(self._transport, self._url, form, self._timeout_s, basic)
        self._expires_at = time.monotonic() + usable_s(grant.lifetime_s)
        self._token = grant.access_token


@dataclass(frozen=True)
class Grant:
    """What an authorization server gave. `refresh_token` is None if the old one stays."""

    access_token: str = field(repr=False)
    lifetime_s: float
    refresh_token: str | None = field(default=None, repr=False)


def usable_s(lifetime_s: float) -> float:
    """How long a token is used; one that lives shorter than the margin for half its life."""
    return max(lifetime_s - EXPIRY_MARGIN_S, lifetime_s / 2)


def granted(
    transport: httpx.BaseTransport,
    url: str,
    form: Mapping[str, str],
    timeout_s: float,
    basic: str | None = None,
) -> Grant:
    """Ask an authorization server for a token (RFC 6749 §5), once.

    Raises:
        AuthenticationFailedError: It gives none.
        SourceError: It cannot be reached, or failed.
    """
    doing = f"POST {shown(url)}"
    headers = {"Accept": "application/json"} | ({} if basic is None else {"Authorization": basic})
    request = httpx.Request(
        "POST", httpx.URL(url), data=dict(form), headers=headers,
        extensions={"timeout": httpx.Timeout(timeout_s).as_dict()},
    )  # fmt: skip
    try:
        answer = transport.handle_request(request)
        try:
            body = b"".join(_bounded(answer))
        finally:
            answer.close()
    except httpx.HTTPError as error:
        raise of_exception(error, doing) from None
    if answer.status_code in (400, 401, 403):
        raise AuthenticationFailedError(
            f"{doing}: status {answer.status_code}: no token; check clientId, clientSecret "
            "and scope, and that a refresh token was not replaced or withdrawn",
            status=answer.status_code,
        )
    if answer.status_code != 200:
        raise of_status(answer.status_code, doing, None)
    return _read_grant(httpx.Response(200, content=body), doing)


def _read_grant(answer: httpx.Response, doing: str) -> Grant:
    try:
        grant = answer.json()
        token, lifetime = grant["access_token"], float(grant.get("expires_in") or 0)
        refresh = grant.get("refresh_token")
    except (ValueError, TypeError, KeyError, AttributeError):
        token, lifetime, refresh = None, 0.0, None
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise AuthenticationFailedError(f"{doing}: the answer holds no access_token")
    return Grant(
        token, lifetime or DEFAULT_LIFETIME_S, refresh if isinstance(refresh, str) else None
    )


def authorization_of(
    auth: Auth,
    url: str | None,
    secrets: Mapping[str, str],
    transport: httpx.BaseTransport,
    timeout_s: float,
) -> Authorization:
    """What a connector's `auth` and secrets mean.

    Raises:
        ValidationError: The secret is missing, or cannot be in a header.
    """
    if auth.kind == "bearer":
        return Fixed({"Authorization": f"Bearer {_secret(secrets, 'token')}"}, {})
    if auth.kind == "basic":
        return Fixed({"Authorization": _basic(auth.user or "", _secret(secrets, "password"))}, {})
    if auth.kind == "apiKey" and auth.location == "header":
        return Fixed({auth.name: _secret(secrets, "apiKey")}, {})
    if auth.kind == "apiKey":
        return Fixed({}, {auth.name: _secret(secrets, "apiKey")})
    if auth.kind == "oauth2" and url is not None:
        secret = _secret(secrets, "clientSecret")
        return ClientCredentials(auth, url, secret, transport, timeout_s)
    return Fixed({}, {})


class AuthenticatedTransport(httpx.BaseTransport):
    """Adds credentials to requests to one origin, of several threads at a time."""

    def __init__(
        self, inner: httpx.BaseTransport, authorization: Authorization, origin: httpx.URL
    ) -> None:
        self._inner, self._authorization, self._origin = inner, authorization, origin
        self._lock = threading.Lock()  # of several requests, one gets the token that all need

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if origin_of(request.url) != origin_of(self._origin):
            return self._inner.handle_request(request)
        headers = httpx.Headers(request.headers)
        with self._lock:
            headers.update(dict(self._authorization.headers()))
        url = request.url
        if params := self._authorization.params():
            url = url.copy_merge_params(dict(params))
        completed = httpx.Request(
            request.method, url, headers=headers, stream=request.stream,
            extensions=request.extensions,
        )  # fmt: skip
        return self._inner.handle_request(completed)

    def forget(self) -> bool:
        """See `Authorization`."""
        with self._lock:
            return self._authorization.forget()

    def close(self) -> None:
        self._inner.close()


def origin_of(url: httpx.URL) -> tuple[str, str, int | None]:
    """Scheme, host and port (RFC 6454)."""
    return url.scheme, url.host, url.port


def _bounded(answer: httpx.Response) -> list[bytes]:
    chunks, size = [], 0
    for chunk in answer.iter_bytes():
        chunks.append(chunk)
        size += len(chunk)
        if size > _MAX_GRANT_BYTES:
            raise AuthenticationFailedError("the authorization server's answer is too large")
    return chunks


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _secret(secrets: Mapping[str, str], name: str) -> str:
    value = secrets.get(name)
    if not value:
        raise ValidationError(f"the secret {name} is missing", field=f"secrets.{name}")
    if name != "password" and not (value.isascii() and value.isprintable()):
        raise ValidationError(
            f"the secret {name} has characters that no header can hold", field=f"secrets.{name}"
        )
    return value
