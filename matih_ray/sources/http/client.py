"""Requests to one API: pace, retries, deadline, redirects and size, all bounded.

A request here only reads, a GraphQL query by POST included, so it may be sent again.
"""

from __future__ import annotations

import functools
import random
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from matih_ray.errors import (
    QuotaSpentError,
    SourceError,
    SourceRejectedError,
    SourceTimeoutError,
    SourceUnavailableError,
    ValidationError,
)
from matih_ray.model.value import JsonValue
from matih_ray.sources.guarded_http import GuardedTransport
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.http.auth import (
    AuthenticatedTransport,
    Authorization,
    authorization_of,
    origin_of,
)
from matih_ray.sources.http.config import Auth, Limits
from matih_ray.sources.http.failures import (
    RETRIED_ERRORS,
    RETRIED_STATUSES,
    WAITING_STATUSES,
    of_exception,
    of_status,
    shown,
)
from matih_ray.sources.http.json_values import parse
from matih_ray.sources.rate_governor import RateGovernor, rate_report, seconds_until
from matih_ray.sources.read_ahead import PLAN_CALLS_AT_ONCE

MAX_BACKOFF_S = 30.0
# Within the API's own origin; a chain of more is a loop.
MAX_REDIRECTS = 5
# Slices are read one after the other by a source, with a few calls at a time; plans ask the most.
_MAX_CONNECTIONS = PLAN_CALLS_AT_ONCE
# A task waits so long for a governor by itself; a longer wait is the planner's, which gives the
# task's place to others meanwhile.
MAX_GOVERNED_WAIT_S = 20.0


@dataclass(frozen=True)
class Request:
    """What is asked. `params` go into the query of a GET, `body` is JSON to POST. `call` is the
    kind of call for rate governors, if the path has ids in it."""

    url: str
    params: Mapping[str, str | int | bool]
    body: Mapping[str, JsonValue] | None = None
    call: str | None = None

    @property
    def doing(self) -> str:
        """The request for people."""
        return f"{'GET' if self.body is None else 'POST'} {shown(self.url)}"


@dataclass(frozen=True)
class Answer:
    """A successful answer: its JSON, its headers, and the URL that it came from."""

    url: str
    headers: httpx.Headers
    body: Any
    http_version: str


@dataclass(frozen=True)
class _Failure:
    """An error, and the seconds to wait at least before another try; None if that cannot help."""

    error: SourceError
    retry_after_s: float | None


@dataclass(frozen=True)
class Server:
    """Where an API is and how to talk to it. `authorization` replaces what `auth` means; it is
    given the transport for asking for tokens, and a timeout in seconds."""

    url: str
    headers: Mapping[str, str]
    auth: Auth
    auth_url: str | None
    ssl_root_cert: str | None
    limits: Limits
    host_policy: HostPolicy
    governor: RateGovernor | None = None
    authorization: Callable[[httpx.BaseTransport, float], Authorization] | None = None


class ApiClient:
    """Connections to one API. Opened on first use; usable again after `close`. Several threads may
    fetch at a time."""

    def __init__(self, server: Server, secrets: Mapping[str, str]) -> None:
        """Check credentials and trust; nothing is connected yet.

        Raises:
            ValidationError: A secret is missing, or the file of root certificates cannot be used.
        """
        self._server, self._limits = server, server.limits
        self._origin = httpx.URL(server.url)
        self._verify = _trust(server)
        self._secrets = dict(secrets)
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()
        self._next_at = 0.0
        self._renewals = 0
        self._open()

    def fetch(self, request: Request, *, max_retries: int | None = None) -> Answer:
        """The answer to a request, after as many retries as are allowed.

        Raises:
            SourceError: With one of the stable codes; `retry_after_s` as the server asked.
        """
        retries = self._limits.max_retries if max_retries is None else max_retries
        deadline = time.monotonic() + self._limits.deadline_s
        renewed = False
        attempt = 0
        while True:
            renewals = self._renewals
            outcome = self._attempt(request, deadline)
            if isinstance(outcome, Answer):
                return outcome
            error, retry_after_s = outcome.error, outcome.retry_after_s
            if error.code == "AUTHENTICATION_FAILED" and not renewed and self._renew(renewals):
                renewed = True  # a token may be withdrawn before its time
                continue
            if retry_after_s is None or attempt >= retries:
                raise error
            wait_s = max(retry_after_s, self._backoff_s(attempt))
            if time.monotonic() + wait_s >= deadline:
                raise error
            time.sleep(wait_s)
            attempt += 1

    def close(self) -> None:
        """Close the connections. Safe to call twice."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _open(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = self._new_client()
            return self._client

    def _new_client(self) -> httpx.Client:
        limits = httpx.Limits(max_connections=_MAX_CONNECTIONS)
        # no proxies and no .netrc of whoever runs the worker
        inner = GuardedTransport(
            self._server.host_policy, verify=self._verify, trust_env=False, limits=limits
        )
        self._authenticated = AuthenticatedTransport(inner, self._authorized(inner), self._origin)
        return httpx.Client(
            transport=self._authenticated,
            headers={"Accept": "application/json", **self._server.headers},
            timeout=httpx.Timeout(
                self._limits.request_timeout_s, connect=self._limits.connect_timeout_s
            ),
            trust_env=False,
        )

    def _authorized(self, transport: httpx.BaseTransport) -> Authorization:
        server, timeout_s = self._server, self._limits.request_timeout_s
        if server.authorization is not None:
            return server.authorization(transport, timeout_s)
        return authorization_of(server.auth, server.auth_url, self._secrets, transport, timeout_s)

    def _renew(self, renewals: int) -> bool:
        """The API refused what was authorized after so many renewals; False if there is no other
        way to be authorized."""
        with self._lock:
            if self._renewals == renewals:
                if not self._authenticated.forget():
                    return False
                self._renewals += 1
        return True

    def _backoff_s(self, attempt: int) -> float:
        longest = min(self._limits.retry_backoff_s * 2.0**attempt, MAX_BACKOFF_S)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 spreads clients, hides nothing

    def _attempt(self, request: Request, deadline: float) -> Answer | _Failure:
        try:
            response, body = self._followed(request, deadline)
        except RETRIED_ERRORS as error:
            return _Failure(of_exception(error, request.doing), 0.0)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _Failure(of_exception(error, request.doing), None)
        except SourceUnavailableError as error:
            if error.context.get("status") not in RETRIED_STATUSES:
                raise  # a spent quota is waited for elsewhere
            return _Failure(error, 0.0)  # of whoever gives tokens
        if response.is_success:
            where = f"{request.doing}: status {response.status_code}"
            url = str(response.request.url)
            parsed = parse(body, where)
            return Answer(url, response.headers, parsed, response.http_version)
        after_s = _retry_after_s(response)
        governed = self._server.governor is not None
        refused = of_status(response.status_code, request.doing, after_s)
        if response.status_code in RETRIED_STATUSES:
            # the governor knows by now, and is asked before the next attempt
            return _Failure(refused, 0.0 if governed else after_s or 0.0)
        return _Failure(refused, after_s if response.status_code in WAITING_STATUSES else None)

    def _followed(self, request: Request, deadline: float) -> tuple[httpx.Response, bytes]:
        """The response after redirects within the origin."""
        url, params = httpx.URL(request.url), dict(request.params)
        if params:
            url = url.copy_merge_params(params)
        for _ in range(MAX_REDIRECTS + 1):
            self._same_origin(url, request.doing)
            response, body = self._sent(request, url, deadline)
            if not response.has_redirect_location:
                return response, body
            try:
                url = response.request.url.join(response.headers["Location"])
            except httpx.InvalidURL as error:
                raise of_exception(error, request.doing) from None
        raise SourceRejectedError(f"{request.doing}: more than {MAX_REDIRECTS} redirects")

    def _sent(
        self, request: Request, url: httpx.URL, deadline: float
    ) -> tuple[httpx.Response, bytes]:
        self._pace(request, deadline)
        method = "GET" if request.body is None else "POST"
        chunks, size = [], 0
        with self._open().stream(method, url, json=request.body) as response:
            for chunk in response.iter_bytes():
                size += len(chunk)
                if size > self._limits.max_response_bytes:
                    raise SourceError(
                        f"{request.doing}: the answer is larger than limits.maxResponseBytes "
                        f"({self._limits.max_response_bytes}); ask for smaller pages or raise it",
                        limit=self._limits.max_response_bytes,
                    )
                _in_time(request, deadline)
                chunks.append(chunk)
        if self._server.governor is not None:
            report = rate_report(response.status_code, response.headers)
            self._server.governor.report(_call(request), report)
        return response, b"".join(chunks)

    def _same_origin(self, url: httpx.URL, doing: str) -> None:
        if origin_of(url) != origin_of(self._origin):
            raise SourceRejectedError(
                f"{doing}: leads to another host, {url.scheme}://{url.host}, which is not "
                "followed; use that host's address in the connector if it is the right one",
                host=url.host,
            )

    def _pace(self, request: Request, deadline: float) -> None:
        self._ask_governor(request, deadline)
        _in_time(request, deadline)
        if self._limits.requests_per_s is None:
            return
        with self._lock:
            now = time.monotonic()
            wait_s = max(self._next_at - now, 0.0)
            self._next_at = now + wait_s + 1 / self._limits.requests_per_s
        time.sleep(wait_s)

    def _ask_governor(self, request: Request, deadline: float) -> None:
        governor = self._server.governor
        if governor is None:
            return
        patient_until = min(time.monotonic() + MAX_GOVERNED_WAIT_S, deadline)
        while (permit := governor.ask(_call(request))).wait_s > 0:
            if time.monotonic() + permit.wait_s > patient_until:
                raise QuotaSpentError(
                    f"{request.doing}: the provider lets calls through again in "
                    f"{permit.wait_s:.0f} s ({permit.parked or 'too many at once'})",
                    retry_after_s=permit.wait_s,
                    reason=permit.parked,
                )
            time.sleep(permit.wait_s)


def _call(request: Request) -> str:
    if request.call is not None:
        return request.call
    method = "GET" if request.body is None else "POST"
    return f"{method} {httpx.URL(request.url).path}"


def _in_time(request: Request, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise SourceTimeoutError(
            f"{request.doing}: not done within limits.deadlineS; ask for smaller pages or raise it"
        )


def _retry_after_s(response: httpx.Response) -> float | None:
    """Seconds to wait as `Retry-After` says, in seconds or as a date (RFC 9110 §10.2.3)."""
    headers = response.headers
    return seconds_until(headers.get("Retry-After", "").strip(), headers.get("Date"))


def _trust(server: Server) -> ssl.SSLContext:
    """Whose certificates are believed. Reading the system's takes longer than a call, and each
    slice has connections of its own: so once a process, and not at all where TLS is not spoken."""
    if not server.url.startswith("https:") and not (server.auth_url or "").startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # believes nobody
    if server.ssl_root_cert is None:
        return _system_trust()
    try:
        return ssl.create_default_context(cafile=server.ssl_root_cert)
    except (OSError, ssl.SSLError):
        raise ValidationError(
            "sslRootCert is not a readable file of PEM certificates", field="sslRootCert"
        ) from None


_system_trust = functools.cache(ssl.create_default_context)
