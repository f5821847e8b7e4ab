"""Several COPYs of one snapshot at once, decoded where they are read."""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Iterator, Sequence

import pyarrow as pa

from matih_ray.sources.postgres.copying import Copy
from matih_ray.sources.postgres.decoding import BlockDecoder

# Batches that wait for whoever takes them, for each COPY: more would only take memory.
AHEAD = 1
# How long a thread waits until it looks whether anybody still wants its batch.
_POLL_S = 0.1


class ParallelCopies:
    """The rows of several COPYs, in the order in which they come. Not thread-safe."""

    def __init__(self, copies: Sequence[Copy]) -> None:
        """Take over COPYs, which `close` ends."""
        self._copies = copies
        self._ready: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue(
            AHEAD * len(copies)
        )
        self._abandoned = threading.Event()
        self._threads: list[threading.Thread] = []

    def batches(self, decoder: BlockDecoder) -> Iterator[pa.RecordBatch]:
        """All rows; to be called once.

        Raises:
            psycopg2.Error: A COPY failed.
            UnrepresentableValueError: A value has no exact form.
        """
        for one in self._copies:
            # a decoder remembers what it met, so each has its own
            arguments = (one, copy.deepcopy(decoder))
            thread = threading.Thread(target=self._decode, args=arguments, name="snapshot")
            thread.daemon = True
            self._threads.append(thread)
            thread.start()
        left = len(self._threads)
        while left:
            item = self._ready.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                left -= 1
            else:
                yield item

    def close(self) -> None:
        """End all COPYs and their threads. Safe to call twice."""
        self._abandoned.set()
        for one in self._copies:
            one.close()
        for thread in self._threads:
            thread.join()

    def _decode(self, one: Copy, decoder: BlockDecoder) -> None:
        end: BaseException | None = None
        try:
            for block in one.blocks():
                if not self._put(decoder.decode(block)):
                    return
        except BaseException as error:  # noqa: BLE001 - a thread's boundary: the taker raises it
            end = error
        self._put(end)

    def _put(self, item: pa.RecordBatch | BaseException | None) -> bool:
        """Whether somebody still wants more."""
        while not self._abandoned.is_set():
            try:
                self._ready.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False
