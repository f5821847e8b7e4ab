"""Messages of Kafka: taken over page by page, decoded in blocks.

A message is an object of Python's, and to keep many of them costs more than all else that is done
with them. So of each page the values are kept, and of their envelopes what somebody will ask for.

Decoded by the thread that takes them: the client reads ahead in threads of its own, and to hand a
block to another of ours, and to wait for it, takes longer than to decode it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa
from confluent_kafka import Message

from matih_ray.errors import StreamRowError
from matih_ray.streaming.connectors.json_format import Decoded, JsonFormat
from matih_ray.streaming.connectors.kafka_metadata import KEYS, envelope_columns
from matih_ray.streaming.connectors.reader import BadRow, MetadataColumn, Polled

# Values of a partition that are decoded at once: large enough that the cost of a call vanishes,
# small enough to be in the processor's cache yet.
BLOCK_BYTES = 2 << 20
Key = tuple[str, int]


@dataclass
class Block:
    """Messages of one partition that follow each other, all with values."""

    key: Key
    values: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    metadata: dict[str, list[object]] = field(default_factory=dict)
    size_bytes: int = 0


class Decoder:
    """Takes messages and gives back their rows, in order of each partition."""

    def __init__(self, json_format: JsonFormat, metadata: Mapping[str, MetadataColumn]) -> None:
        self._format = json_format
        self._metadata = dict(metadata)
        self._open: dict[Key, Block] = {}
        self._decoded: list[Polled] = []
        self.rows = 0
        self.size_bytes = 0

    def take(self, key: Key, messages: Sequence[Message]) -> None:
        """Take over a page's messages of one partition, without those that have no value.

        Raises:
            StreamRowError: A row cannot be read, and parse errors are not ignored.
        """
        values: list[bytes | None] = list(map(Message.value, messages))
        if None in values:
            messages = [one for one in messages if one.value() is not None]
            values = list(map(Message.value, messages))
        block = self._open.get(key)
        if block is None:
            block = self._open[key] = Block(key, metadata={name: [] for name in self._metadata})
        size = sum(map(len, values))  # type: ignore[arg-type]  # none of them is None
        block.values += values  # type: ignore[arg-type]  # as above
        block.offsets += _offsets(messages)
        for name, column in self._metadata.items():
            block.metadata[name] += map(KEYS[column.key][1], messages)
        block.size_bytes += size
        self.rows += len(values)
        self.size_bytes += size
        if block.size_bytes >= BLOCK_BYTES:
            self._decode(key)

    def decoded(self) -> list[Polled]:
        """The rows of all that was taken.

        Raises:
            StreamRowError: A row cannot be read, and parse errors are not ignored.
        """
        for key in list(self._open):
            self._decode(key)
        found, self._decoded = self._decoded, []
        self.rows = self.size_bytes = 0
        return found

    def _decode(self, key: Key) -> None:
        block = self._open.pop(key)
        if block.values:
            self._decoded.append(self._rows_of(block))

    def _rows_of(self, block: Block) -> Polled:
        try:
            decoded = self._format.decode_values(block.values)
        except StreamRowError as error:
            where = f"{name_of(block.key)}, offsets {block.offsets[0]} to {block.offsets[-1]}"
            raise StreamRowError(f"{where}: {error.message}") from None
        return self._polled(block, decoded)

    def _polled(self, block: Block, decoded: Decoded) -> Polled:
        batch, numbers = decoded.batch, decoded.numbers
        if self._metadata:
            columns = envelope_columns(block.metadata, numbers, self._metadata)
            names = [*batch.schema.names, *columns]
            batch = pa.record_batch([*batch.columns, *columns.values()], names=names)

        def message(number: int) -> tuple[str, bytes]:
            return str(block.offsets[number]), block.values[number]

        def origin(row: int) -> tuple[str, bytes]:
            return message(row if numbers is None else numbers[row])

        bad = tuple(
            BadRow(str(block.offsets[one.number]), one.why, one.text) for one in decoded.bad
        )
        return Polled(name_of(block.key), batch, bad=bad, origin=origin)


def by_partition(page: Sequence[Message], topics: set[str]) -> Iterator[tuple[Key, list[Message]]]:
    """A page's messages, as they follow each other in partitions of these topics."""
    if len(topics) == 1:
        (topic,) = topics
        for partition, run in groupby(page, Message.partition):
            yield (topic, partition), list(run)
    else:
        for key, run in groupby(page, lambda one: (one.topic(), one.partition())):
            yield key, list(run)


def _offsets(messages: Sequence[Message]) -> Iterable[int]:
    """Their offsets, which rise: if the last is as far from the first as it may be, none is left
    out between them."""
    if not messages:
        return ()
    first, last = messages[0].offset(), messages[-1].offset()
    if last - first + 1 == len(messages):
        return range(first, last + 1)
    return map(Message.offset, messages)


def name_of(key: Key) -> str:
    """`topic/number`."""
    return f"{key[0]}/{key[1]}"
