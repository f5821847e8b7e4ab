"""The stages of a connectivity test that need no vendor's client: DNS, TCP and TLS.

TLS is probed only on request: PostgreSQL, MySQL and SQL Server start in clear text and switch over,
so that a handshake sent at once would fail on a healthy server. Their TLS errors come from the
source's own `test`.
"""

from __future__ import annotations

import queue
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from matih_ray.errors import (
    ConfigurationError,
    ConnectionRefusedByHostError,
    DnsResolutionError,
    MatihError,
    SourceTimeoutError,
    TlsHandshakeError,
)
from matih_ray.model.connector import ConnectivityStage, StageState
from matih_ray.sources.connectivity import STAGES, StagedTest, StageName, diagnosis, stage_of
from matih_ray.sources.host_policy import Address, HostPolicy

TlsMode = Literal["require", "verify-ca", "verify-full"]

# Longer than a handshake with another continent takes, shorter than people wait for a button.
PROBE_TIMEOUT_S = 10.0
# A name may have many addresses; the time is shared among the first so many, so that each gets
# long enough for a lost packet to be sent again.
MAX_ADDRESSES_TRIED = 4


@dataclass(frozen=True)
class DirectTls:
    """How to probe a protocol that starts with TLS: the mode, and trusted certificates (PEM).

    Without `root_cert` the system's certificates are trusted. `require` looks at none.
    """

    mode: TlsMode
    root_cert: Path | None = None


def probe(
    host: str,
    port: int,
    policy: HostPolicy,
    *,
    direct_tls: DirectTls | None = None,
    timeout_s: float = PROBE_TIMEOUT_S,
) -> StagedTest:
    """Resolve, connect and, if asked, shake hands; all of it within `timeout_s`.

    Does not raise for what a server or the network does: that is the answer.

    Raises:
        ConfigurationError: The root certificate's file cannot be used.
    """
    context = None if direct_tls is None else _context(direct_tls)
    probing = _Probe(host, port, time.monotonic() + timeout_s)
    addresses: tuple[Address, ...] = ()
    error: MatihError | None = None
    try:
        with probing.stage(StageName.DNS):
            addresses = probing.resolve(policy)
        if addresses:  # none: a socket of the machine itself
            with probing.stage(StageName.TCP):
                connection = probing.connect(addresses)
            with connection:
                if context is not None:
                    with probing.stage(StageName.TLS):
                        probing.shake_hands(connection, context)
    except MatihError as failed:
        error = failed
    remedy = None if error is None else diagnosis(error).remediation
    return StagedTest(probing.stages(), addresses, error, remedy)


class _Probe:
    """One probe under way: its deadline, and the stages it has been through."""

    def __init__(self, host: str, port: int, deadline: float) -> None:
        self._host = host
        self._port = port
        self._deadline = deadline
        self._done: dict[StageName, ConnectivityStage] = {}

    @contextmanager
    def stage(self, name: StageName) -> Iterator[None]:
        """Note how long the work inside takes and whether it fails."""
        started = time.monotonic()
        state = StageState.FAILED
        try:
            yield
            state = StageState.PASSED
        finally:
            self._done[name] = stage_of(name, state, (time.monotonic() - started) * 1000)

    def stages(self) -> tuple[ConnectivityStage, ...]:
        """All stages in order; those that were not reached are skipped."""
        return tuple(self._done.get(name, stage_of(name, StageState.SKIPPED)) for name in STAGES)

    def resolve(self, policy: HostPolicy) -> tuple[Address, ...]:
        """In a thread of its own, because the system's resolver has no deadline.

        A daemon thread: a resolver that never answers must not keep the process from ending.
        """
        answer: queue.SimpleQueue[tuple[Address, ...] | MatihError] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answer.put(policy.resolve_allowed(self._host, self._port))
            except MatihError as error:
                answer.put(error)

        threading.Thread(target=ask, daemon=True, name="probe-dns").start()
        try:
            found = answer.get(timeout=self._remaining_s())
        except queue.Empty:
            raise DnsResolutionError(
                f"no answer from DNS about {self._host} in time; check this runtime's DNS servers",
                host=self._host,
            ) from None
        if isinstance(found, MatihError):
            raise found
        return found

    def connect(self, addresses: tuple[Address, ...]) -> socket.socket:
        """A connection to the first address that takes one; each gets its share of the time."""
        refused: OSError | None = None
        tried = addresses[:MAX_ADDRESSES_TRIED]
        for position, address in enumerate(tried):
            share_s = self._remaining_s() / (len(tried) - position)
            try:
                return socket.create_connection((str(address), self._port), timeout=share_s)
            except TimeoutError:
                continue
            except OSError as error:
                refused = error
        if refused is None:
            raise SourceTimeoutError(
                f"{self._address} does not answer; a firewall may drop what is sent to it",
                host=self._host,
                port=self._port,
            )
        raise ConnectionRefusedByHostError(
            f"{self._address}: {refused.strerror or refused}; verify host and port",
            host=self._host,
            port=self._port,
        )

    def shake_hands(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        """TLS over an open connection, with the host as the name that the server should have."""
        # no dot at the end: SNI knows none (RFC 6066 §3)
        name = self._host.strip().rstrip(".")
        try:
            connection.settimeout(0)
            with context.wrap_socket(
                connection, server_hostname=name, do_handshake_on_connect=False
            ) as encrypted:
                self._complete(encrypted)
        except ssl.SSLCertVerificationError as error:
            raise TlsHandshakeError(
                f"the certificate of {self._address} is not accepted: {error.verify_message}",
                host=self._host,
                port=self._port,
                verify_code=error.verify_code,
            ) from None
        except TimeoutError:
            raise SourceTimeoutError(
                f"{self._address} took the connection and did not go on with TLS in time",
                host=self._host,
                port=self._port,
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be asked for
            raise TlsHandshakeError(
                f"{self._address} did not complete a TLS handshake: {_reason(error)}",
                host=self._host,
                port=self._port,
            ) from None

    def _complete(self, encrypted: ssl.SSLSocket) -> None:
        """The handshake, step by step: a time-out of the socket would be one for each of its
        pieces, and a server that sends byte by byte could go on for ever."""
        while time.monotonic() < self._deadline:
            try:
                encrypted.do_handshake()
            except ssl.SSLWantReadError:
                awaited = selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                awaited = selectors.EVENT_WRITE
            else:
                return
            with selectors.DefaultSelector() as selector:
                selector.register(encrypted, awaited)
                selector.select(self._remaining_s())
        raise TimeoutError

    @property
    def _address(self) -> str:
        return f"{self._host}:{self._port}"

    def _remaining_s(self) -> float:
        # never 0, which would make a socket non-blocking
        return max(self._deadline - time.monotonic(), 0.001)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason
    if isinstance(error, ssl.SSLError | ConnectionError):
        return "it closed the connection"
    return str(error)


def _context(tls: DirectTls) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = tls.mode == "verify-full"
    if tls.mode == "require":
        context.verify_mode = ssl.CERT_NONE
        return context
    if tls.root_cert is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cafile=tls.root_cert)
    except OSError as error:  # also ssl.SSLError, for a file that is not PEM
        raise ConfigurationError(
            f"cannot use the root certificates of {tls.root_cert}: {error.strerror or error}; it "
            "must be a PEM file",
            path=str(tls.root_cert),
        ) from None
    return context
