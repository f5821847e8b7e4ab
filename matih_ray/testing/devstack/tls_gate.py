"""TLS in front of a server that speaks none: what is decrypted is passed on, byte for byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path
from types import TracebackType

HANDSHAKE_TIMEOUT_S = 10.0
CHUNK_BYTES = 65_536


class TlsGate:
    """A gate on loopback to a port of this machine, with a certificate and its key (PEM files)."""

    def __init__(self, port: int, certificate: Path, key: Path) -> None:
        self._behind = ("127.0.0.1", port)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def __enter__(self) -> TlsGate:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # closing alone does not wake a thread that waits in `accept`
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                taken, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError), taken:  # a refused certificate is one
            taken.settimeout(HANDSHAKE_TIMEOUT_S)
            with (
                self._context.wrap_socket(taken, server_side=True) as front,
                socket.create_connection(self._behind) as back,
            ):
                front.settimeout(None)
                threading.Thread(target=_pass_on, args=(back, front), daemon=True).start()
                _pass_on(front, back)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # one side has closed
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
