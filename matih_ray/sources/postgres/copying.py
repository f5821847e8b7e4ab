"""Pulls the output of one COPY as blocks of whole lines.

`COPY (…) TO STDOUT` in text format, received by psycopg2's `copy_expert`, is the fastest exact
route out of PostgreSQL that was measured and every driver offers (TPC-H lineitem, client CPU per
million rows): libpq hands each row to a C-implemented `io.BufferedWriter`, 0.4 s. Receiving costs
twice that with psycopg 3's iteration over rows or asyncpg's small pieces; `psql` through a pipe
costs the same and needs the binary. Half of it takes who reads the socket, which is done where much
is read and TLS does not forbid it (`socket_copy`). Text and not CSV: newlines inside values are
escaped, so a block may be cut at any newline and parsed alone; and NULL (`\\N`) and the empty
string differ without quotes. Text and not binary: binary numerics would have to be decoded digit
by digit in Python.

`copy_expert` pushes and `blocks` pulls, so a thread pushes into a queue of one block. That also
lets the network and the parser work at the same time.
"""

from __future__ import annotations

import contextlib
import io
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

import psycopg2

from matih_ray.kernels import PADDING
from matih_ray.sources.postgres import copy_kernels

# Bytes of COPY text per block; Arrow needs 1.3 times as many for lineitem, and five times as many
# for nothing but NULL decimals. Up to five blocks exist at once (buffer, cut, queued, parsed,
# yielded): with lineitem a reader needs 100 MB. 16 MB blocks were not faster and need 170 MB.
# A block is larger only when a single row is.
BLOCK_BYTES = 8 * 1024 * 1024
BLOCKS_AHEAD = 1
# The cut is searched from the end in steps of this many bytes; most rows are shorter.
_TAIL_BYTES = 64 * 1024
# How long closing waits between two looks at whether the copying thread has ended.
_POLL_S = 0.02
# How long it waits for a cancel to work before it sends another.
_CANCEL_AGAIN_S = 1.0


class Copy(Protocol):
    """The output of one COPY."""

    def blocks(self) -> Iterator[bytes | memoryview]:
        """Blocks that end with a newline and `PADDING`; each is there until the next is asked for.

        Raises:
            psycopg2.Error: The COPY failed.
            RefusedStatementError: The same.
        """

    def close(self) -> None:
        """Stop the COPY if it is still running."""


def open_copy(connection: Any, statement: str) -> Copy:
    """Begin a COPY on a psycopg2 connection, which nobody else uses until it is closed."""
    if copy_kernels.pay() and not connection.info.ssl_in_use:
        from matih_ray.sources.postgres.socket_copy import SocketCopy

        return SocketCopy(connection, statement)
    return CopyStream(connection, statement)


class CopyStream:
    """One COPY, running in a thread on a connection that it has to itself until it is closed."""

    def __init__(self, connection: Any, statement: str) -> None:
        """Args:
        connection: A psycopg2 connection.
        statement: `COPY (…) TO STDOUT`.
        """
        self._connection = connection
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(BLOCKS_AHEAD)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(statement,), name="postgres-copy", daemon=True
        )
        self._thread.start()

    def blocks(self) -> Iterator[bytes]:
        """Blocks that end with a newline and `PADDING`, each of about `BLOCK_BYTES`.

        Raises:
            psycopg2.Error: The COPY failed.
        """
        return iter(self._next, None)  # and keeps no block alive while the caller works on it

    def close(self) -> None:
        """Stop the COPY if it is still running, and wait for its thread."""
        # What still comes is passed over and only the server ends the COPY: were `copy_expert` to
        # fail in the thread, the next statement would first receive all that is left of it.
        self._abandoned.set()
        while self._thread.is_alive():
            self._cancel()  # again, if it came before the statement began
            deadline = time.monotonic() + _CANCEL_AGAIN_S
            while self._thread.is_alive() and time.monotonic() < deadline:
                self._drain()
                self._thread.join(_POLL_S)
        with contextlib.suppress(queue.Full):
            self._queue.put_nowait(None)  # for another thread that may wait for a block

    def _next(self) -> bytes | None:
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def _run(self, statement: str) -> None:
        end: BaseException | None = None
        try:
            lines = _LineBlocks(self._put)
            buffered = io.BufferedWriter(lines, BLOCK_BYTES)
            with self._connection.cursor() as cursor:
                cursor.copy_expert(statement, buffered)
            buffered.flush()
        except BaseException as error:  # noqa: BLE001 thread boundary: raised again by the reader
            end = error
        self._put(end)

    def _put(self, item: bytes | BaseException | None) -> None:
        if not self._abandoned.is_set():
            self._queue.put(item)

    def _drain(self) -> None:
        try:
            self._queue.get_nowait()
        except queue.Empty:
            return

    def _cancel(self) -> None:
        try:
            self._connection.cancel()
        except psycopg2.Error:
            return  # the connection is broken already, which ends the COPY too


class _LineBlocks(io.RawIOBase):
    """Receives bytes in large pieces and hands on blocks that end with a newline and `PADDING`."""

    def __init__(self, put: Any) -> None:
        super().__init__()
        self._put = put
        self._rest: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Called by `BufferedWriter` with one buffer's worth of bytes."""
        view = memoryview(data)
        cut = _after_last_newline(view)
        if cut:
            self._put(b"".join([*self._rest, view[:cut], PADDING]))
            self._rest.clear()
        if cut < len(view):
            self._rest.append(bytes(view[cut:]))
        return len(view)


def _after_last_newline(view: memoryview) -> int:
    end = len(view)
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        found = bytes(view[start:end]).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
