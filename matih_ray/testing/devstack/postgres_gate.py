"""A gate in front of a PostgreSQL server that can lose the reply of a COMMIT, as networks do."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType

# A simple query as psycopg2 sends it: type, length, text, zero byte.
_COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
PIECE_BYTES = 65_536
# Enough of a transaction to find its last statements in.
KEPT_BYTES = 16_384
# Long enough for any reply on this machine; a server that has closed is noticed at once.
REPLY_TIMEOUT_S = 30.0
POLL_S = 0.2


class PostgresGate:
    """Passes bytes on in both directions until told otherwise. For connections without TLS only."""

    def __init__(self, host: str, port: int) -> None:
        self._upstream = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._armed: bool | None = None
        self._after = b""
        self._open = True
        self._refusing = False
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def lose_reply(self, *, applied: bool, after: bytes = b"") -> None:
        """Break the next connection that commits: after the server did, or before it hears of it.

        Only a transaction counts in which these bytes of a statement have passed.
        """
        with self._lock:
            self._armed, self._after = applied, after

    def refuse(self, *, connections: bool) -> None:
        """Close new connections at once, or stop doing so."""
        self._refusing = connections

    def close(self) -> None:
        """Take no more connections."""
        self._open = False
        self._listener.close()

    def __enter__(self) -> PostgresGate:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while self._open:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            client,
            socket.create_connection(self._upstream) as server,
        ):
            passed = b""  # of the transaction so far
            while self._open:
                ready, _, _ = select.select([client, server], [], [], POLL_S)
                for one in ready:
                    data = one.recv(PIECE_BYTES)
                    if not data:
                        return
                    if one is client:
                        passed = (passed + data)[-KEPT_BYTES:]
                        if data.endswith(_COMMIT):
                            if self._after in passed and self._breaks(data, server):
                                return
                            passed = b""
                    (server if one is client else client).sendall(data)

    def _breaks(self, data: bytes, server: socket.socket) -> bool:
        """Whether this COMMIT is the one whose reply gets lost; the server may hear of it."""
        with self._lock:
            applied, self._armed = self._armed, None
        if applied is None:
            return False
        if applied:
            server.settimeout(REPLY_TIMEOUT_S)
            server.sendall(data)
            server.recv(PIECE_BYTES)
        return True
