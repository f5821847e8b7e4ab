"""The `kafka` source: partitions that are assigned, read from the job's own offsets.

Group offsets are committed for whoever watches the group and are read at a first start only; whose
rows count is decided by checkpoints. Nothing is subscribed to, because a rebalance would move
partitions without their watermarks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from matih_ray.errors import (
    MatihError,
    SourceChangedError,
    SourceTimeoutError,
    SqlInvalidError,
)
from matih_ray.model.value import JsonValue
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.kafka.failures import Problems, mapped_errors, typed
from matih_ray.sources.probe import probe
from matih_ray.streaming.connectors.json_format import JsonFormat
from matih_ray.streaming.connectors.kafka_messages import Decoder, Key, by_partition, name_of
from matih_ray.streaming.connectors.kafka_offsets import Offsets
from matih_ray.streaming.connectors.kafka_options import KafkaTable
from matih_ray.streaming.connectors.reader import MetadataColumn, Polled
from matih_ray.streaming.connectors.shares import WHOLE, Share
from matih_ray.streaming.sql.types import FlinkType

# Messages asked for at once. Each is an object of Python's; so many stay in the processor's cache
# until they are let go of, and pages of 5,000 cost twice as much a message.
PAGE_MESSAGES = 500
# A page is waited for so long; what has come by then is a batch.
PAGE_WAIT_S = 0.05
# Python's copies of values that one batch is made of.
BATCH_BYTES = 64 << 20
# What the client reads ahead, beside a batch's own memory.
AHEAD_KBYTES = 64 * 1024
CONNECT_TIMEOUT_S = 20.0
STEP_S = 0.5
UNUSED_GROUP = "matih-ray-unused"
_END = KafkaError._PARTITION_EOF  # noqa: SLF001 the library's public name
# A consumer looks for its group's coordinator whether it needs one or not.
_OF_THE_GROUP = frozenset(
    {KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.COORDINATOR_NOT_AVAILABLE}
)

log = structlog.get_logger(__name__)


@dataclass
class _Place:
    """A partition: the next offset, and where a bounded read ends."""

    next: int
    end: int | None

    @property
    def finished(self) -> bool:
        return self.end is not None and self.next >= self.end


class KafkaReader:
    """A `StreamReader` of the topics of one table."""

    def __init__(
        self,
        table: KafkaTable,
        fields: Mapping[str, FlinkType],
        metadata: Mapping[str, MetadataColumn],
        policy: HostPolicy,
        share: Share = WHOLE,
    ) -> None:
        self._table = table
        self._share = share
        self._decoder = Decoder(JsonFormat(fields, table.format), metadata)
        self._policy = policy
        self._problems = Problems()
        self._consumer: Consumer | None = None
        self._offsets: Offsets | None = None
        self._places: dict[Key, _Place] = {}
        self._at_end: set[Key] = set()
        self._discovered_s = 0.0

    def open(self, positions: Mapping[str, JsonValue] | None) -> None:
        """Connect, and begin where the table or the positions say."""
        self._consumer = self._connected()
        self._offsets = Offsets(self._consumer, self._table)
        known = {} if positions is None else {_key(one): at for one, at in positions.items()}
        found = self._offsets.partitions()
        gone = sorted(set(known) - set(found))
        if gone:
            raise SourceChangedError(
                f"table {self._table.name}: partition {name_of(gone[0])} is in the checkpoint and "
                "not in the cluster; was the topic made again?"
            )
        for key, at in known.items():
            if self._share.has(*key):
                self._places[key] = _place(at)
        new = [key for key in found if key not in known and self._share.has(*key)]
        self._places |= self._begun(new, at_first=positions is not None)
        self._assign()
        self._discovered_s = time.monotonic()

    def partitions(self) -> Sequence[str]:
        """`topic/number` of each."""
        return [name_of(key) for key in self._places]

    def poll(self, max_rows: int, timeout_s: float) -> Sequence[Polled]:
        """A batch of each partition that has something."""
        self._discover()
        deadline = time.monotonic() + timeout_s
        decoder, topics = self._decoder, {topic for topic, _ in self._places}
        while decoder.rows < max_rows and decoder.size_bytes < BATCH_BYTES:
            page, ends = self._page(min(PAGE_MESSAGES, max_rows - decoder.rows))
            for key, messages in by_partition(page, topics):
                decoder.take(key, self._before_end(key, messages))
            for key, offset in ends.items():
                self._reached(key, offset)
            if time.monotonic() >= deadline or (decoder.rows and not page):
                break
        return decoder.decoded()

    def positions(self) -> dict[str, JsonValue]:
        """Next offsets, and ends."""
        return {
            name_of(key): {"next": place.next, "end": place.end}
            for key, place in self._places.items()
        }

    def caught_up(self) -> Sequence[str]:
        """Partitions whose end was reached."""
        return [name_of(key) for key in self._at_end]

    def finished(self) -> Sequence[str]:
        """Partitions that were read to the end of a bounded read."""
        return [name_of(key) for key, place in self._places.items() if place.finished]

    def finds_more(self) -> bool:
        """Whether new partitions are looked for, or whether the read has no end."""
        return self._table.bound.mode == "unbounded"

    def acknowledge(self, positions: Mapping[str, JsonValue]) -> None:
        """Commit the group's offsets, for monitoring."""
        if self._consumer is None or self._table.group_id is None:
            return
        offsets = [TopicPartition(*_key(name), _place(at).next) for name, at in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.warning("group_offsets_not_committed", detail=error.args[0].str())

    def close(self) -> None:
        """Leave."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None

    # --- connecting --------------------------------------------------------------------------

    def _connected(self) -> Consumer:
        """A consumer that has the cluster's metadata, whose brokers are all allowed."""
        client = dict(self._table.client)
        doing = f"table {self._table.name}"
        self._check_reachable(client["bootstrap.servers"])
        options: dict[str, Any] = {
            "client.id": "matih-ray",
            "isolation.level": "read_committed",
            "queued.max.messages.kbytes": AHEAD_KBYTES,
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 100,
            "socket.keepalive.enable": True,
            **client,
            "group.id": self._table.group_id or UNUSED_GROUP,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "error_cb": self._problems.note,
            "on_commit": _committed,
        }
        try:
            consumer = Consumer(options, logger=self._problems.logger)
        except KafkaException as error:
            raise SqlInvalidError(f"{doing}: {error.args[0].str()}") from None
        try:
            self._check_brokers(consumer, doing)
        except BaseException:
            consumer.close()
            raise
        return consumer

    def _check_brokers(self, consumer: Consumer, doing: str) -> None:
        deadline = time.monotonic() + CONNECT_TIMEOUT_S
        while True:
            try:
                found = consumer.list_topics(timeout=STEP_S)
                break
            except KafkaException:
                consumer.poll(0)  # tells `problems`
            error = self._problems.final(doing)
            if error is None and time.monotonic() > deadline:
                error = self._problems.telling(doing) or SourceTimeoutError(
                    f"{doing}: no broker answers; check security.protocol and the address"
                )
            if error is not None:
                raise error
        for broker in found.brokers.values():
            self._policy.resolve_allowed(broker.host, broker.port)

    def _check_reachable(self, servers: str) -> None:
        """Say why, if none of the addresses can be reached."""
        failed: MatihError | None = None
        for server in servers.split(","):
            host, _, port = server.strip().rpartition(":")
            if not host or not port.isdigit():
                raise SqlInvalidError("properties.bootstrap.servers is host:port, host:port, …")
            probed = probe(host.strip("[]"), int(port), self._policy)
            if probed.success:
                return
            failed = failed or probed.error
        if failed is not None:
            raise failed

    # --- partitions --------------------------------------------------------------------------

    def _begun(self, keys: list[Key], *, at_first: bool) -> dict[Key, _Place]:
        assert self._offsets is not None  # noqa: S101 - opened
        starts = self._offsets.first(keys) if at_first else self._offsets.starts(keys)
        ends = self._offsets.ends(keys)
        return {key: _Place(starts[key], ends[key]) for key in keys}

    def _assign(self) -> None:
        assert self._consumer is not None  # noqa: S101 - opened
        unread = {key: place for key, place in self._places.items() if not place.finished}
        with mapped_errors(f"table {self._table.name}"):
            self._consumer.assign([TopicPartition(*key, place.next) for key, place in
                                   unread.items()])  # fmt: skip

    def _discover(self) -> None:
        """Take up new partitions; a bounded read knows all of its own."""
        interval_ms = self._table.discovery_ms
        waited_ms = (time.monotonic() - self._discovered_s) * 1000
        if interval_ms == 0 or waited_ms < interval_ms or self._table.bound.mode != "unbounded":
            return
        assert self._offsets is not None  # noqa: S101 - opened
        assert self._consumer is not None  # noqa: S101 - opened
        self._discovered_s = time.monotonic()
        found = [key for key in self._offsets.partitions() if self._share.has(*key)]
        new = [key for key in found if key not in self._places]
        if new:
            begun = self._begun(new, at_first=True)
            self._places |= begun
            with mapped_errors(f"table {self._table.name}"):
                self._consumer.incremental_assign(
                    [TopicPartition(*key, place.next) for key, place in begun.items()]
                )

    # --- messages ----------------------------------------------------------------------------

    def _page(self, wanted: int) -> tuple[list[Message], dict[Key, int]]:
        """Messages, and at which offsets the broker had no more of a partition."""
        if self._consumer is None:
            raise SourceTimeoutError(f"table {self._table.name} is not open")
        with mapped_errors(f"table {self._table.name}"):
            found = self._consumer.consume(wanted, PAGE_WAIT_S)
        if not found and (error := self._problems.final(f"reading table {self._table.name}")):
            raise error
        errors = list(map(Message.error, found))
        if not any(errors):
            return found, {}
        page: list[Message] = []
        ends: dict[Key, int] = {}
        for message, error in zip(found, errors, strict=True):
            if error is None:
                page.append(message)
            elif error.code() == _END:
                ends[message.topic(), message.partition()] = int(message.offset())
            elif error.code() not in _OF_THE_GROUP:
                raise typed(error, f"reading table {self._table.name}")
        return page, ends

    def _reached(self, key: Key, offset: int) -> None:
        """The broker had no more at this offset: what is left of a bounded read before it holds no
        message."""
        place = self._places[key]
        if offset < place.next:
            return  # more has come since
        self._at_end.add(key)
        if place.end is not None and offset >= place.end:
            place.next = max(place.next, place.end)

    def _before_end(self, key: Key, messages: list[Message]) -> list[Message]:
        """Those of a partition that are to be read, which then were."""
        place = self._places[key]
        self._at_end.discard(key)
        if place.end is not None and messages[-1].offset() >= place.end:
            messages = [one for one in messages if one.offset() < place.end]
            place.next = place.end
        else:
            place.next = int(messages[-1].offset()) + 1
        return messages


def _committed(error: KafkaError | None, _: list[TopicPartition]) -> None:
    if error is not None:
        log.warning("group_offsets_not_committed", detail=error.str())


def _key(name: str) -> Key:
    topic, _, number = name.rpartition("/")
    return topic, int(number)


def _place(at: JsonValue) -> _Place:
    assert isinstance(at, dict)  # noqa: S101 - written by `positions`
    next_, end = at["next"], at["end"]
    assert isinstance(next_, int)  # noqa: S101 - as above
    assert end is None or isinstance(end, int)  # noqa: S101 - as above
    return _Place(next_, end)
