"""HTTP to hosts that are checked, and to the very addresses that were checked.

A drop-in for `httpx.HTTPTransport`. Checking a host and then letting a client connect to its name
leaves a moment in which the name can come to mean something else; here the address is put into the
request and the name stays where it is needed, in the `Host` header and in TLS. Every request comes
through here, a followed redirect like any other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from matih_ray.errors import SourceRejectedError
from matih_ray.sources.host_policy import Address, HostPolicy

# Resolved again after this long: shorter than the time-to-live that most services give their names.
ADDRESSES_TTL_S = 30.0
# Hosts of one source, redirects included; each has connections of its own.
MAX_HOSTS = 16

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class _Resolved:
    addresses: tuple[Address, ...]
    until: float


class GuardedTransport(httpx.BaseTransport):
    """An `httpx.HTTPTransport` behind a host policy; `options` are the latter's. Safe for threads.

    A request raises `HostNotAllowedError` or `DnsResolutionError` beside httpx's own errors.
    """

    def __init__(
        self, policy: HostPolicy, *, clock: Callable[[], float] = time.monotonic, **options: Any
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._options = options
        self._lock = threading.Lock()
        # One transport per name: a pool knows addresses only, and would hand a connection that
        # was verified for one name to another name at the same address.
        self._transports: dict[str, httpx.HTTPTransport] = {}
        self._resolved: dict[tuple[str, int], _Resolved] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the first of its host's checked addresses that takes a connection."""
        host = request.url.raw_host.decode("ascii")
        port = request.url.port or _PORTS.get(request.url.scheme, 0)
        transport = self._transport_of(host)
        *others, last = self._addresses(host, port)
        for address in others:
            try:
                return transport.handle_request(_pinned(request, host, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue  # nothing has been sent yet
        return transport.handle_request(_pinned(request, host, last))

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        with self._lock:
            transports = list(self._transports.values())
            self._transports.clear()
        for transport in transports:
            transport.close()

    def _addresses(self, host: str, port: int) -> tuple[Address, ...]:
        known = self._resolved.get((host, port))
        if known is None or self._clock() >= known.until:
            found = self._policy.resolve_allowed(host, port)
            known = _Resolved(found, self._clock() + ADDRESSES_TTL_S)
            self._resolved[host, port] = known
        return known.addresses

    def _transport_of(self, host: str) -> httpx.HTTPTransport:
        with self._lock:
            if host not in self._transports:
                if len(self._transports) >= MAX_HOSTS:
                    raise SourceRejectedError(
                        f"{host} would be one host more than the {MAX_HOSTS} that one source may "
                        "talk to; is it being redirected in circles?",
                        host=host,
                    )
                self._transports[host] = httpx.HTTPTransport(**self._options)
            return self._transports[host]


def _pinned(request: httpx.Request, host: str, address: Address) -> httpx.Request:
    """The request with an address in place of the name; headers, `Host` among them, stay."""
    # no dot at the end: SNI knows none (RFC 6066 §3)
    extensions = {**request.extensions, "sni_hostname": host.rstrip(".")}
    return httpx.Request(
        request.method,
        request.url.copy_with(host=str(address)),
        headers=request.headers,
        stream=request.stream,
        extensions=extensions,
    )
