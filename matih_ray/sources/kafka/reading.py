"""The messages of offset ranges, as they come: by pages, until each range is read to its end."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Generator

from confluent_kafka import Consumer, KafkaError, Message
from confluent_kafka import TopicPartition as Partition

from matih_ray.errors import MatihError, SourceTimeoutError
from matih_ray.sources.base import TARGET_BATCH_BYTES
from matih_ray.sources.kafka.failures import Problems, typed
from matih_ray.sources.kafka.session import Sessions

# Python objects take several times a message's bytes, and more at a time are not faster. Of large
# messages a page has fewer, by the size of those before; the first one is small.
PAGE_MESSAGES = 5000
PAGE_BYTES = TARGET_BATCH_BYTES // 4
FIRST_PAGE_MESSAGES = 10
# `consume` waits for a full page; at the end of a range with gaps there never is one.
PAGE_WAIT_S = 0.1
_END = KafkaError._PARTITION_EOF  # noqa: SLF001 the library's public name
# A consumer looks for its group's coordinator whether it needs one or not.
_OF_THE_GROUP = frozenset(
    {KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.COORDINATOR_NOT_AVAILABLE}
)


def messages(
    sessions: Sessions, topic: str, partition: int, start: int, end: int
) -> Generator[list[Message], None, None]:
    """Pages of the messages at `start <= offset < end`, in order.

    The range has ended when a message lies beyond it, or when the broker says that the partition
    ends there: its last offsets may hold no message, and then none of them ever comes.

    Raises:
        SourceError: Reading failed, or nothing came for as long as the configuration allows.
    """
    doing = f"reading {topic}, partition {partition}"
    position, size, ended = start, FIRST_PAGE_MESSAGES, False
    with sessions.consumer([Partition(topic, partition, start)]) as (consumer, problems):
        waiting = _Waiting(sessions, problems, doing)
        while position < end:
            page, ends = next_page(consumer, min(size, end - position), doing)
            # told once, and maybe together with the last messages
            ended = ended or ends.get((topic, partition), 0) >= end
            if page:
                position = offset_of(page[-1]) + 1
                size = _page_size(page)
                waiting.restart()
                yield _below(page, end)
            elif ended:
                return
            else:
                waiting.check()


def next_page(
    consumer: Consumer, wanted: int, doing: str
) -> tuple[list[Message], dict[tuple[str, int], int]]:
    """Messages that have come, and where partitions were found to end.

    Raises:
        SourceError: The broker answered with an error.
    """
    found = consumer.consume(wanted, PAGE_WAIT_S)
    ends: dict[tuple[str, int], int] = {}
    bad = [message for message in found if message.error() is not None]
    for message in bad:
        code = message.error().code()
        if code == _END:
            ends[message.topic(), message.partition()] = offset_of(message)
        elif code not in _OF_THE_GROUP:
            raise typed(message.error(), doing)
    page = [message for message in found if message.error() is None] if bad else found
    return page, ends


def offset_of(message: Message) -> int:
    """A message's offset, which every message that was read has."""
    return int(message.offset())


def _below(page: list[Message], end: int) -> list[Message]:
    if offset_of(page[-1]) < end:
        return page
    return page[: bisect_left(page, end, key=offset_of)]


def _page_size(page: list[Message]) -> int:
    """How many messages like these are a page."""
    average = sum(map(len, page)) // len(page)  # of a message, it is its value's length
    return max(1, min(PAGE_MESSAGES, PAGE_BYTES // (average + 1)))


class _Waiting:
    """How long nothing has come, and what to say when that is too long."""

    def __init__(self, sessions: Sessions, problems: Problems, doing: str) -> None:
        self._limit_s = sessions.config.read_timeout_s
        self._problems = problems
        self._doing = doing
        self.restart()

    def restart(self) -> None:
        """Something came."""
        self._since = time.monotonic()

    def check(self) -> None:
        """Raise if nothing came for too long, or for a reason that will not go away."""
        error: MatihError | None = self._problems.final(self._doing)
        if error is None and time.monotonic() - self._since > self._limit_s:
            error = self._problems.first(self._doing) or SourceTimeoutError(
                f"{self._doing}: nothing came for {self._limit_s} s; check that the partition has "
                "a leader"
            )
        if error is not None:
            raise error
