"""Pulls the output of one COPY from the socket of its connection, past libpq.

libpq hands over one row at a time, at 0.3 us each: the most of what receiving costs. The protocol
("COPY Operations" and "Message Formats" of PostgreSQL's manual) is plain: a query is sent, each row
is a message, and until ReadyForQuery comes nobody else uses the connection. So here the query is
written to the socket that libpq has opened and logged in, pieces of megabytes are read from it, and
a compiled kernel takes the rows out of their messages, in place. libpq never knows: it is idle
before and after. The system's own buffers let the server go on meanwhile, so there is no thread,
and one block of memory instead of five.

Not for connections with TLS: there libpq alone can read what comes.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import psycopg2

from matih_ray.kernels import PADDING
from matih_ray.kernels.copy_messages import HEADER_BYTES, unwrap
from matih_ray.sources.postgres.failures import RefusedStatementError

# Bytes of messages that are read before their rows are handed on. Half of what `copying` hands on
# takes less time, as more of it is still in the processor's cache when it is decoded. A block is
# larger only when a single row is.
BLOCK_BYTES = 4 * 1024 * 1024
# Who waits for a socket is woken once this much has come, and not for every 8 KB that the server
# sends: to be woken is a third of what receiving costs, and costs the server a tenth more.
_MUCH_BYTES = 1024 * 1024
# After a pause of this long what has come is taken, however little: the end of all, or the output
# of a slow query.
_PAUSE_S = 0.01
# How long one look at the socket waits when nothing has come for that long. It ends nothing, as a
# query may think for hours before its first row, and keepalives find a dead peer; but whoever
# closes must get a turn.
_WAIT_S = 1.0
# A statement fits into the system's buffers unless the server does not read.
_SEND_S = 30.0
# ReadyForQuery but for its last byte. No COPY text has such bytes, so where they are the last that
# came there is no use in waiting for more.
_READY = b"Z\0\0\0\5"
# Messages that say nothing to us: CopyOutResponse, CopyDone, CommandComplete, and what may come at
# any time: NoticeResponse, ParameterStatus, NotificationResponse.
_PASSED_OVER = b"HcCNSA"


class SocketCopy:
    """One COPY, on a connection that it has to itself until it is closed."""

    def __init__(self, connection: Any, statement: str) -> None:
        """Args:
        connection: A psycopg2 connection without TLS, in UTF-8.
        statement: `COPY (…) TO STDOUT`.

        Raises:
            psycopg2.OperationalError: The connection is lost.
        """
        self._connection = connection
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._lock = threading.Lock()  # whoever closes may be another thread than the reader
        self._buffer = bytearray(BLOCK_BYTES + len(PADDING))
        self._size = 0
        self._rest = b""  # the beginning of a message that has not come to its end,
        self._rest_wanted = 0  # and how many bytes it will have, as far as that is known
        self._is_closing = self._is_done = False
        self._refusal: RefusedStatementError | None = None
        query = statement.encode() + b"\0"
        with _lost_connections():
            self._socket.settimeout(_SEND_S)
            self._socket.sendall(b"Q" + struct.pack(">I", len(query) + 4) + query)
            self._socket.settimeout(0)  # as libpq has it
        self._wake_at(_MUCH_BYTES)

    def blocks(self) -> Iterator[memoryview]:
        """Blocks that end with a newline and `PADDING`, each of about `BLOCK_BYTES`; each is there
        until the next is asked for.

        Raises:
            psycopg2.Error: The connection is lost.
            RefusedStatementError: The COPY failed.
        """
        while True:
            with self._lock:
                if self._is_done:
                    return
                rows = self._next()
            if rows:
                yield memoryview(self._buffer)[: rows + len(PADDING)]

    def close(self) -> None:
        """Stop the COPY if it is still running, and read what is left of it."""
        self._is_closing = True
        with contextlib.suppress(psycopg2.Error, RefusedStatementError):
            while not self._is_done:
                self._connection.cancel()  # again, if it came before the statement began
                with self._lock:
                    self._pass_over(time.monotonic() + _WAIT_S)
        self._is_done = True
        self._wake_at(1)  # libpq waits for answers that are short
        self._socket.close()

    def _pass_over(self, deadline: float) -> None:
        while not self._is_done and time.monotonic() < deadline:
            self._next()

    def _next(self) -> int:
        """How many bytes of rows are at the front of the buffer now, with padding after them."""
        self._begin()
        is_open = self._receive()
        rows = self._take_messages()
        if not is_open:
            self._is_done = True
        if self._is_done and self._refusal is not None:
            raise self._refusal
        if not is_open:
            raise psycopg2.OperationalError("the server closed the connection")
        return rows

    def _receive(self) -> bool:
        """Fill the buffer, or read to the end; whether the connection is still open."""
        room = memoryview(self._buffer)[: len(self._buffer) - len(PADDING)]
        ready_at = -1
        while self._size < len(room) and ready_at < 0:
            self._wait()
            with _lost_connections():
                try:
                    got = self._socket.recv_into(room[self._size :])
                except BlockingIOError:
                    if self._is_closing:
                        return True
                    continue
            if got == 0:
                return False
            self._size += got
            end = self._size - len(_READY) - 1
            ready_at = self._buffer.find(_READY, max(end, 0), self._size)
        return True

    def _wait(self) -> None:
        """Until much has come; or anything, after a pause; or for a while."""
        if self._poll.poll(_PAUSE_S * 1000):
            return
        self._wake_at(1)
        self._poll.poll(_WAIT_S * 1000)
        self._wake_at(_MUCH_BYTES)

    def _wake_at(self, size: int) -> None:
        with contextlib.suppress(OSError):  # a local socket of some systems has no such option
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)

    def _take_messages(self) -> int:
        """Put the rows that have come to the front; how many bytes they are."""
        view = np.frombuffer(self._buffer, np.uint8)
        ends = np.zeros(1, np.int64)
        at = rows = 0
        while True:
            rows = unwrap(view.ctypes.data, at, self._size, rows, ends.ctypes.data)
            at = int(ends[0])
            after = self._after(at)
            if after > self._size:
                break
            self._obey(self._buffer[at], at + HEADER_BYTES, after)
            at = after
        self._rest = bytes(memoryview(self._buffer)[at : self._size])
        self._rest_wanted = after - at
        self._buffer[rows : rows + len(PADDING)] = PADDING
        return rows

    def _after(self, at: int) -> int:
        """Where the message that begins here ends."""
        if at + HEADER_BYTES > self._size:
            return at + HEADER_BYTES
        (length,) = struct.unpack_from(">i", self._buffer, at + 1)
        if length < HEADER_BYTES - 1:
            raise self._not_understood(self._buffer[at])
        return int(at + 1 + length)

    def _obey(self, letter: int, start: int, end: int) -> None:
        if letter == ord("Z"):
            self._is_done = True
        elif letter == ord("E"):
            self._refusal = _refusal(bytes(memoryview(self._buffer)[start:end]))
        elif letter not in _PASSED_OVER:
            raise self._not_understood(letter)

    def _begin(self) -> None:
        """Begin the buffer with what has come of a message; make room for the whole of it."""
        needed = max(BLOCK_BYTES, self._rest_wanted) + len(PADDING)
        if len(self._buffer) != needed:
            self._buffer = bytearray(needed)
        self._size = len(self._rest)
        self._buffer[: self._size] = self._rest

    def _not_understood(self, letter: int) -> psycopg2.OperationalError:
        """Nobody knows any more where a message begins, so the connection is of no use."""
        self._is_done = True
        self._connection.close()
        return psycopg2.OperationalError(
            f"a message {chr(letter)!r} came in the middle of a COPY; is it a connection pooler's?"
        )


@contextlib.contextmanager
def _lost_connections() -> Iterator[None]:
    """Let errors of a socket be what psycopg2 makes of a lost connection."""
    try:
        yield
    except OSError as error:
        raise psycopg2.OperationalError(f"the connection was lost: {error}") from None


def _refusal(fields: bytes) -> RefusedStatementError:
    """What an ErrorResponse says ("Error and Notice Message Fields")."""
    found = {field[:1]: field[1:].decode(errors="replace") for field in fields.split(b"\0")}
    return RefusedStatementError(found.get(b"C", "XX000"), found.get(b"M", "no message"))
