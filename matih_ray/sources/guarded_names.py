"""Names are resolved under a host policy while a source works, whichever client asks.

A host is checked before a source is built, and most clients look the name up again when they
connect, or follow the server to another one (a member of a replica set, a redirect). Sources that
can be given an address connect to the checked one; for the clients that cannot, Python's resolver
itself answers only with allowed addresses, in the thread in which the source is working. Clients
that do not ask Python (librdkafka) or ask in threads of their own (pymongo's monitors, which only
greet a server; Arrow's, in which files of S3 are read) are not covered.

Why a replaced function: every pure Python client comes down to `socket.getaddrinfo`, and none of
them offers a place for another resolver.
"""

from __future__ import annotations

import functools
import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from matih_ray.errors import HostNotAllowedError
from matih_ray.sources.base import SourceEndpoint
from matih_ray.sources.host_policy import HostPolicy

# All that talks to a source, of `SourceEndpoint` and of its abilities.
CALLS = (
    "test",
    "list_units",
    "describe_unit",
    "read_schema",
    "plan_incremental_slices",
    "hold_snapshot",
    "read",
)

Source = TypeVar("Source", bound=SourceEndpoint)

_policy: ContextVar[HostPolicy | None] = ContextVar("host_policy", default=None)
_resolve = socket.getaddrinfo


def guarded(source: Source, policy: HostPolicy) -> Source:
    """The same source; whatever it does, it resolves names under the policy."""
    socket.getaddrinfo = _resolve_allowed
    for name in CALLS:
        call = getattr(source, name, None)
        if call is not None:
            setattr(source, name, _under(policy, call))
    return source


def _resolve_allowed(host: Any, *arguments: Any, **options: Any) -> Any:
    """`socket.getaddrinfo`, which knows no host that the policy of the moment does not allow."""
    found = _resolve(host, *arguments, **options)
    policy = _policy.get()
    if policy is None or not host:
        return found
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    try:
        policy.check_addresses(name, {ipaddress.ip_address(str(entry[4][0])) for entry in found})
    except HostNotAllowedError as error:
        # clients expect this one; ours could come out of them as anything
        raise socket.gaierror(socket.EAI_NONAME, error.message) from None
    return found


def _under(policy: HostPolicy, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def guarded_call(*arguments: Any, **options: Any) -> Any:
        with _in_force(policy):
            answer = call(*arguments, **options)
        return _steps(policy, answer) if isinstance(answer, Iterator) else answer

    return guarded_call


def _steps(policy: HostPolicy, items: Iterator[Any]) -> Iterator[Any]:
    """Each step of an iterator under the policy; closing it closes the iterator."""
    try:
        while True:
            with _in_force(policy):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


@contextmanager
def _in_force(policy: HostPolicy) -> Iterator[None]:
    token = _policy.set(policy)
    try:
        yield
    finally:
        _policy.reset(token)
