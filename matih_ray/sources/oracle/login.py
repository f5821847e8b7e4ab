"""One connection: to an address that was checked, under TLS that Python checks, in bounded time."""

from __future__ import annotations

import queue
import ssl
import threading
from typing import Any

import oracledb

from matih_ray.errors import (
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)
from matih_ray.sources.host_policy import Address, HostPolicy
from matih_ray.sources.oracle.config import OracleConfig
from matih_ray.sources.oracle.failures import mapped_errors

# A name may have many addresses; each may take the whole time to connect.
_MAX_ADDRESSES_TRIED = 4
# Probes after so long a silence: shorter than the idle limits of common firewalls.
_KEEPALIVE_MINUTES = 1


class _NamedContext(ssl.SSLContext):
    """TLS with a host whose address is connected: the driver has only the address to compare, and
    turns the check of the name off."""

    host = ""
    checks_name = False

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        """As Python's, for the host's name."""
        self.check_hostname = self.checks_name
        return super().wrap_socket(*arguments, **{**options, "server_hostname": self.host})


def connected(config: OracleConfig, password: str | None, policy: HostPolicy) -> Any:
    """The driver's connection to the first of the host's addresses that takes one.

    Raises:
        HostNotAllowedError: The operator does not allow the host.
        SourceError: With one of the seven stable connectivity codes.
    """
    failure: SourceUnavailableError | None = None
    for address in policy.resolve_allowed(config.host, config.port)[:_MAX_ADDRESSES_TRIED]:
        try:
            return _in_time(config, password, address)
        except SourceUnavailableError as error:
            failure = error
    raise failure or SourceUnavailableError(f"{config.host} is no address of the network")


def _in_time(config: OracleConfig, password: str | None, address: Address) -> Any:
    """The connection, or an error, after `connect_timeout_s`.

    In a thread, because the driver has no limit for a listener that takes a connection and says
    nothing; such a thread remains until the other side closes.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    given_up = threading.Event()

    def connect() -> None:
        try:
            answer = _connect(config, password, address)
        except BaseException as error:  # noqa: BLE001 raised by whoever waits
            answers.put(error)
            return
        if given_up.is_set():
            answer.close()
        answers.put(answer)

    threading.Thread(target=connect, name="oracle-login", daemon=True).start()
    try:
        answer = answers.get(timeout=config.connect_timeout_s)
    except queue.Empty:
        given_up.set()
        raise SourceTimeoutError(
            f"{config.host}:{config.port} does not answer in time; a firewall may drop what is sent"
        ) from None
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _connect(config: OracleConfig, password: str | None, address: Address) -> Any:
    with mapped_errors(f"cannot connect to {config.host}:{config.port}"):
        return oracledb.connect(
            user=config.user,
            password=password or "",
            host=str(address),
            port=config.port,
            service_name=config.database,
            protocol="tcp" if config.ssl_mode == "disable" else "tcps",
            ssl_context=_context(config),
            ssl_server_dn_match=False,  # Python compares the name
            tcp_connect_timeout=config.connect_timeout_s,
            retry_count=0,
            expire_time=_KEEPALIVE_MINUTES,
        )


def _context(config: OracleConfig) -> ssl.SSLContext | None:
    if config.ssl_mode == "disable":
        return None
    context = _NamedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.host, context.checks_name = config.host, config.ssl_mode == "verify-full"
    if config.ssl_mode == "require":
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        if config.ssl_root_cert is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(config.ssl_root_cert)
    except OSError as error:
        raise TlsHandshakeError(
            f"the trusted certificates {config.ssl_root_cert} cannot be read: {error}"
        ) from None
    return context
