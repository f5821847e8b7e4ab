"""requests sessions that connect to addresses that were checked, for vendors' clients built on it.

The twin of `guarded_http` for libraries that bring `requests`: only how a connection is made is
replaced, below pools, TLS and retries, so that names stay where they are needed. What a connection
meets (no such host, closed port, refused certificate) leaves as an error of ours straight through
those layers, which would otherwise try again and then hide it.
"""

from __future__ import annotations

import logging
import re
import socket
import ssl
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util.connection import create_connection

from matih_ray.errors import (
    ConnectionRefusedByHostError,
    SourceError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)
from matih_ray.sources.host_policy import HostPolicy

# Connections to one host that one source may have under way in one process.
MAX_CONNECTIONS = 16
# A name may have many addresses; each may take the whole time to connect.
MAX_ADDRESSES_TRIED = 4
MAX_TEXT_CHARS = 300
# Signatures are parts of it.
_QUERY = re.compile(r"\?\S*")


def guarded_session(policy: HostPolicy, root_cert: str | None = None) -> requests.Session:
    """A session behind a host policy, without this machine's proxies and passwords.

    Args:
        policy: Where it may connect to.
        root_cert: File of trusted certificates (PEM); the usual ones if None.
    """
    # would write every query string, and with it signatures, into a debug log
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)
    session = requests.Session()
    session.trust_env = False
    session.verify = root_cert or True
    for scheme in ("http://", "https://"):
        session.mount(scheme, _GuardedAdapter(policy))
    return session


def unanswered(error: BaseException, doing: str) -> SourceError:
    """Our error for a request that got no answer, whatever a client has wrapped it in."""
    inner: BaseException | None = error
    kind: type[SourceError] = SourceUnavailableError
    while inner is not None:
        if isinstance(inner, SourceError):
            return inner
        if isinstance(inner, requests.exceptions.SSLError | ssl.SSLError):
            kind = TlsHandshakeError
        elif isinstance(inner, requests.exceptions.Timeout | TimeoutError):
            kind = SourceTimeoutError
        # the first is azure-core's way to name a cause
        inner = getattr(inner, "inner_exception", None) or inner.__cause__ or inner.__context__
    text = _QUERY.sub("", str(error))
    return kind(f"{doing}: {text[:MAX_TEXT_CHARS]}")


class _GuardedAdapter(HTTPAdapter):
    def __init__(self, policy: HostPolicy) -> None:
        self._policy = policy
        super().__init__(pool_maxsize=MAX_CONNECTIONS)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pools(self._policy)


def _pools(policy: HostPolicy) -> dict[str, type[HTTPConnectionPool]]:
    """urllib3 takes classes of pools and connections, so each policy has its own."""

    class Plain(_Checked, HTTPConnection):
        host_policy = policy

    class Encrypted(_Encrypted):
        host_policy = policy

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


class _Checked(HTTPConnection):
    """Connects to the first checked address of its host that takes a connection."""

    host_policy: ClassVar[HostPolicy]

    def _new_conn(self) -> socket.socket:
        port = int(self.port or 0)
        where = f"{self.host}:{port}"
        failure: SourceError | None = None
        for address in self.host_policy.resolve_allowed(self.host, port)[:MAX_ADDRESSES_TRIED]:
            try:
                return create_connection(
                    (str(address), port), self.timeout, socket_options=self.socket_options
                )
            except TimeoutError:
                failure = SourceTimeoutError(
                    f"{where} does not answer; a firewall may drop what is sent to it"
                )
            except OSError as error:
                failure = ConnectionRefusedByHostError(
                    f"{where}: {error.strerror or error}; verify host and port"
                )
        raise failure or SourceUnavailableError(f"{where} has no address")


class _Encrypted(_Checked, HTTPSConnection):
    def connect(self) -> None:
        try:
            super().connect()
        except ssl.SSLCertVerificationError as error:
            raise TlsHandshakeError(
                f"the certificate of {self.host}:{self.port} is not accepted: "
                f"{error.verify_message}",
                verify_code=error.verify_code,
            ) from None
        except TimeoutError:
            raise SourceTimeoutError(
                f"{self.host}:{self.port} took the connection and did not go on with TLS in time"
            ) from None
        except (OSError, HTTPError) as error:
            raise TlsHandshakeError(
                f"{self.host}:{self.port} did not complete a TLS handshake: "
                f"{str(error)[:MAX_TEXT_CHARS]}"
            ) from None
