"""What the driver talks through instead of a socket.

TDS 7.4 agrees on encryption in its first exchange, PRELOGIN, and the handshake of TLS travels
inside its packets ([MS-TDS] 2.2.6.5 and 3.2.5.2). The channel asks for encryption and shakes hands
by Python's own `ssl`, which checks names, and tells the driver that nobody can encrypt, so that it
leaves it alone. It also looks through the answer to the login for a redirection, which the driver
would follow by itself, in clear text.

All errors of the network leave it as ours: the driver would try again after those of the system.
"""

from __future__ import annotations

import socket
import ssl
import struct
from dataclasses import dataclass

from matih_ray.errors import (
    ConnectionRefusedByHostError,
    SourceError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)
from matih_ray.sources.host_policy import Address
from matih_ray.sources.sqlserver.config import SqlServerConfig

_HEADER = struct.Struct(">BBHHBB")
_REPLY, _PRELOGIN = 4, 18
_END_OF_MESSAGE = 1
_MAX_PACKET_BYTES = 32_767
_ENCRYPTION_OPTION, _TERMINATOR = 1, 0xFF
_ENCRYPT_ON, _ENCRYPT_NOT_SUPPORTED, _ENCRYPT_REQUIRED = 1, 2, 3
_ENVIRONMENT_TOKEN, _ROUTING = 0xE3, 20
# Tokens of an answer to a login whose length comes first.
_SIZED_TOKENS = frozenset({0xAA, 0xAB, 0xAD, _ENVIRONMENT_TOKEN})
_RECEIVE_BYTES = 65_536
_LOGGED_IN = 2
# A name may have many addresses; each may take the whole time to connect.
_MAX_ADDRESSES_TRIED = 4
# Probes start after 30 s of silence: shorter than the idle limits of common firewalls. A dead peer
# is noticed 30 s later.
_KEEPALIVES = {
    socket.TCP_KEEPIDLE: 30,
    socket.TCP_KEEPINTVL: 10,
    socket.TCP_KEEPCNT: 3,
}


@dataclass(frozen=True)
class Route:
    """Where a server sends its clients."""

    host: str
    port: int


class RoutedError(Exception):
    """The server asks to go elsewhere; never seen outside `session`."""

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self.route = route


class Channel:
    """One connection, with the methods of a socket that the driver uses."""

    def __init__(
        self, connection: socket.socket, config: SqlServerConfig, host: str, place: str
    ) -> None:
        self._socket = connection
        self._config, self._host, self._place = config, host, place
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ready = bytearray()  # received, and not yet taken
        self._turn = 0  # messages of the server so far, up to the answer to the login

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """An option of the socket."""
        self._socket.setsockopt(level, option, value)

    def gettimeout(self) -> float | None:
        """The longest wait for the other side, in seconds."""
        return self._socket.gettimeout()

    def settimeout(self, timeout_s: float | None) -> None:
        """Change the longest wait; while logging in it is ours, whatever the driver says."""
        if self._turn == _LOGGED_IN:
            self._socket.settimeout(timeout_s)

    def sendall(self, data: bytes | bytearray, flags: int = 0) -> None:  # noqa: ARG002 a socket's signature
        """Send everything."""
        if self._turn == 0 and self._config.ssl_mode != "disable":
            data = _with_encryption(bytes(data), _ENCRYPT_ON)
        self._send(bytes(data))

    def recv(self, size: int, flags: int = 0) -> bytes:  # noqa: ARG002 a socket's signature
        """Up to so many bytes; none at the end."""
        if not self._ready:
            if self._turn == 0:
                self._ready += self._prelogin()
            elif self._turn == 1:
                self._ready += self._login_answer()
            else:
                self._ready += self._receive()
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def recv_into(self, buffer: bytearray | memoryview, size: int = 0, flags: int = 0) -> int:
        """The same into a buffer; the number of bytes."""
        taken = self.recv(size or len(buffer), flags)
        buffer[: len(taken)] = taken
        return len(taken)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _prelogin(self) -> bytes:
        """The server's part of the first exchange, as the driver is to see it."""
        self._turn = 1
        answer = self._message()
        asked, granted = self._config.ssl_mode, _encryption(answer)
        if asked == "disable":
            if granted == _ENCRYPT_REQUIRED:
                raise TlsHandshakeError(
                    f"{self._place} takes encrypted connections only; set sslMode to require or "
                    "one of verify-…"
                )
            return answer
        if granted in (_ENCRYPT_ON, _ENCRYPT_REQUIRED):
            self._shake_hands()
        elif asked != "prefer":
            raise TlsHandshakeError(f"{self._place} does not offer TLS; see sslMode")
        return _with_encryption(answer, _ENCRYPT_NOT_SUPPORTED)

    def _login_answer(self) -> bytes:
        """The answer to the login.

        Raises:
            RoutedError: It is a redirection.
        """
        self._turn = _LOGGED_IN
        answer = self._message()
        route = _route(answer[_HEADER.size :])
        if route is not None:
            raise RoutedError(route)
        return answer

    def _message(self) -> bytes:
        """A message of the server's, whole and in one packet; empty if it has closed."""
        payload = bytearray()
        while True:
            header = self._exactly(_HEADER.size)
            if not header:
                return b""
            kind, status, size, *_ = _HEADER.unpack(header)
            if kind not in (_REPLY, _PRELOGIN) or not _HEADER.size <= size <= _MAX_PACKET_BYTES:
                raise SourceError(f"what answers at {self._place} does not speak TDS")
            payload += self._exactly(size - _HEADER.size)
            if status & _END_OF_MESSAGE:
                break
            if len(payload) > _MAX_PACKET_BYTES - _HEADER.size:
                raise SourceError(f"{self._place} answers a login with too much")
        return _HEADER.pack(kind, status, len(payload) + _HEADER.size, 0, 1, 0) + bytes(payload)

    def _shake_hands(self) -> None:
        context = _context(self._config)
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=self._host)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                self._send_records()
                answer = self._message()
                if not answer:
                    raise TlsHandshakeError(
                        f"{self._place} ended the connection during the TLS handshake"
                    ) from None
                self._incoming.write(answer[_HEADER.size :])
            except ssl.SSLError as error:
                raise TlsHandshakeError(
                    f"no TLS with {self._place}: {error}",
                    verify_code=getattr(error, "verify_code", None),
                ) from None
            else:
                break
        self._send_records()
        self._tls = tls

    def _send_records(self) -> None:
        records = self._outgoing.read()
        if records:
            size = len(records) + _HEADER.size
            self._raw_send(_HEADER.pack(_PRELOGIN, _END_OF_MESSAGE, size, 0, 1, 0) + records)

    def _exactly(self, size: int) -> bytes:
        """So many bytes, or none if the other side has closed."""
        while len(self._ready) < size:
            more = self._receive()
            if not more:
                return b""
            self._ready += more
        taken = bytes(self._ready[:size])
        del self._ready[:size]
        return taken

    def _send(self, data: bytes) -> None:
        if self._tls is None:
            self._raw_send(data)
            return
        self._tls.write(data)
        self._raw_send(self._outgoing.read())

    def _receive(self) -> bytes:
        if self._tls is None:
            return self._raw_receive()
        while True:
            try:
                return self._tls.read(_RECEIVE_BYTES)
            except ssl.SSLWantReadError:
                records = self._raw_receive()
                if not records:
                    return b""
                self._incoming.write(records)
            except ssl.SSLError as error:
                raise SourceUnavailableError(f"TLS with {self._place} broke: {error}") from None

    def _raw_send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(error) from None

    def _raw_receive(self) -> bytes:
        try:
            return self._socket.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise self._lost(error) from None

    def _lost(self, error: OSError) -> SourceError:
        if isinstance(error, TimeoutError):
            return SourceTimeoutError(f"{self._place} does not answer in time")
        return SourceUnavailableError(
            f"the connection to {self._place} broke: {error.strerror or error}"
        )


def open_channel(
    config: SqlServerConfig, host: str, port: int, addresses: tuple[Address, ...]
) -> Channel:
    """A connection to the first of a host's addresses that takes one.

    Raises:
        SourceError: CONNECTION_REFUSED or TIMEOUT.
    """
    place = f"{host}:{port}"
    failure: SourceError | None = None
    for address in addresses[:_MAX_ADDRESSES_TRIED]:
        try:
            connection = socket.create_connection((str(address), port), config.connect_timeout_s)
        except TimeoutError:
            failure = SourceTimeoutError(
                f"{place} does not answer; a firewall may drop what is sent to it"
            )
        except OSError as error:
            failure = ConnectionRefusedByHostError(
                f"cannot connect to {place}: {error.strerror or error}; verify host and port"
            )
        else:
            for option, value in _KEEPALIVES.items():
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
            return Channel(connection, config, host, place)
    raise failure or ConnectionRefusedByHostError(f"{place} is no address of the network")


def _context(config: SqlServerConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ssl_root_cert)
    except OSError as error:
        raise TlsHandshakeError(
            f"the trusted certificates {config.ssl_root_cert} cannot be read: {error}"
        ) from None
    # TDS 7.4 is not specified for TLS 1.3, whose tickets would come between the packets
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = config.ssl_mode == "verify-full"
    if config.ssl_mode in ("prefer", "require"):
        context.verify_mode = ssl.CERT_NONE
    return context


def _encryption_place(message: bytes) -> int | None:
    """Where a PRELOGIN says what it has to say of encryption."""
    option = _HEADER.size
    while option + 5 <= len(message) and message[option] != _TERMINATOR:
        kind, offset, _ = struct.unpack_from(">BHH", message, option)
        place = _HEADER.size + int(offset)
        if kind == _ENCRYPTION_OPTION and place < len(message):
            return place
        option += 5
    return None


def _encryption(message: bytes) -> int:
    place = _encryption_place(message)
    return _ENCRYPT_NOT_SUPPORTED if place is None else message[place]


def _with_encryption(message: bytes, value: int) -> bytes:
    place = _encryption_place(message)
    return message if place is None else message[:place] + bytes([value]) + message[place + 1 :]


def _route(tokens: bytes) -> Route | None:
    """The redirection among the tokens of an answer to a login (2.2.7.9), if there is one."""
    place = 0
    while place + 3 <= len(tokens) and tokens[place] in _SIZED_TOKENS:
        (size,) = struct.unpack_from("<H", tokens, place + 1)
        body = tokens[place + 3 : place + 3 + size]
        if tokens[place] == _ENVIRONMENT_TOKEN and body[:1] == bytes([_ROUTING]) and size > 8:
            port, chars = struct.unpack_from("<HH", body, 4)
            return Route(body[8 : 8 + 2 * chars].decode("utf-16-le", "replace"), int(port))
        place += 3 + size
    return None
