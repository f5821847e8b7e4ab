"""Which topics there are, and where their partitions begin and end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, TopicCollection
from confluent_kafka import TopicPartition as Partition
from confluent_kafka.admin import AclOperation, OffsetSpec

from matih_ray.errors import (
    DatabaseNotFoundError,
    SourceError,
    SourcePermissionError,
    SourceUnavailableError,
    UnknownUnitError,
)
from matih_ray.sources.kafka.failures import mapped_errors
from matih_ray.sources.kafka.session import Sessions

# Topics in one question; a description of one is some hundred bytes.
TOPICS_PER_QUESTION = 200
# Kafka's own topics, and those that tools of its ecosystem keep to themselves.
_INTERNAL = "__"
# What a broker before 2.8 answers.
_NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
_UNKNOWN = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_EXCEPTION)


@dataclass(frozen=True)
class Topic:
    """A topic that may be read. `topic_id` is None where brokers give none."""

    name: str
    topic_id: str | None
    partitions: int


@dataclass(frozen=True)
class Bounds:
    """Of each partition in order: the first offset that is left, the last stable offset (below
    which no transaction is open), and the end of the log."""

    first: tuple[int, ...]
    stable: tuple[int, ...]
    end: tuple[int, ...]


def readable_topics(sessions: Sessions) -> list[Topic]:
    """All topics that the account may read, ordered by name, without Kafka's own.

    Raises:
        SourcePermissionError: There are none, and the account may not even look.
    """
    admin = sessions.admin()
    with mapped_errors(f"listing topics of {sessions.address}"):
        names = list(admin.list_topics(timeout=sessions.config.connect_timeout_s).topics)
    visible = sorted(name for name in names if not name.startswith(_INTERNAL))
    found = [topic for topic in _described(sessions, visible) if topic is not None]
    if not found and not _may_look(sessions):
        raise SourcePermissionError(
            f"{sessions.address}: {sessions.config.user or 'nobody'} may read no topic; give the "
            "account READ and DESCRIBE on what should be loaded"
        )
    return found


def readable_topic(sessions: Sessions, name: str) -> Topic:
    """One topic.

    Raises:
        UnknownUnitError: There is none.
        SourcePermissionError: The account may not read it, or not know whether there is one.
    """
    (topic,) = _described(sessions, [name], refuse=True)
    if topic is None:
        raise UnknownUnitError(f"no topic {name!r} at {sessions.address}", unit_id=name)
    return topic


def check_configured(sessions: Sessions) -> None:
    """Look for the topics that the configuration names.

    Raises:
        DatabaseNotFoundError: One does not exist.
        SourcePermissionError: One may not be read.
    """
    for options in sessions.config.topics:
        try:
            readable_topic(sessions, options.name)
        except UnknownUnitError as error:
            raise DatabaseNotFoundError(error.message, topic=options.name) from None


def bounds(sessions: Sessions, topic: Topic) -> Bounds:
    """Where the topic's partitions begin and end now.

    Raises:
        SourceUnavailableError: A partition has no leader.
    """
    return all_bounds(sessions, [topic])[topic.name]


def all_bounds(sessions: Sessions, topics: Iterable[Topic]) -> dict[str, Bounds]:
    """The same for several topics with three questions."""
    topics = list(topics)
    partitions = [Partition(t.name, number) for t in topics for number in range(t.partitions)]
    first = _offsets(sessions, partitions, OffsetSpec.earliest())
    stable = _offsets(sessions, partitions, OffsetSpec.latest())
    end = _offsets(sessions, partitions, OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)

    def of(topic: Topic, found: dict[tuple[str, int], int]) -> tuple[int, ...]:
        return tuple(found[topic.name, number] for number in range(topic.partitions))

    return {
        topic.name: Bounds(of(topic, first), of(topic, stable), of(topic, end)) for topic in topics
    }


def _offsets(
    sessions: Sessions,
    partitions: list[Partition],
    spec: OffsetSpec,
    isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
) -> dict[tuple[str, int], int]:
    asked = (
        sessions.admin().list_offsets(
            dict.fromkeys(partitions, spec),
            isolation_level=isolation,
            request_timeout=sessions.config.connect_timeout_s,
        )
        if partitions
        else {}
    )
    found = {}
    for partition, future in asked.items():
        name = f"offsets of {partition.topic}, partition {partition.partition}"
        try:
            found[partition.topic, partition.partition] = int(sessions.answer(future, name).offset)
        except SourceError as error:
            if error.context.get("kafka_code") in (
                KafkaError.LEADER_NOT_AVAILABLE,
                KafkaError.NOT_LEADER_FOR_PARTITION,
            ):
                raise SourceUnavailableError(error.message, **error.context) from None
            raise
    return found


def _described(sessions: Sessions, names: list[str], *, refuse: bool = False) -> list[Topic | None]:
    """Topics by name; None for one that is not there, or may not be read unless that is refused."""
    admin = sessions.admin()
    found: list[Topic | None] = []
    for start in range(0, len(names), TOPICS_PER_QUESTION):
        part = names[start : start + TOPICS_PER_QUESTION]
        with mapped_errors(f"describing topics of {sessions.address}"):
            asked = admin.describe_topics(
                TopicCollection(part),
                include_authorized_operations=True,
                request_timeout=sessions.config.connect_timeout_s,
            )
        for name in part:
            try:
                found.append(_topic(name, sessions.answer(asked[name], f"describing {name!r}")))
            except SourcePermissionError:
                if refuse:
                    raise
                found.append(None)
            except SourceError as error:
                if error.context.get("kafka_code") not in _UNKNOWN:
                    raise
                found.append(None)
    return found


def _topic(name: str, described: Any) -> Topic:
    allowed = described.authorized_operations
    if allowed is not None and AclOperation.READ not in allowed:
        raise SourcePermissionError(
            f"topic {name!r} may be described and not read; give the account READ on it",
            topic=name,
        )
    topic_id = str(described.topic_id)
    return Topic(name, None if topic_id == _NO_ID else topic_id, len(described.partitions))


def _may_look(sessions: Sessions) -> bool:
    """Whether an empty list means that there is nothing: the account may describe the cluster.

    None stands for no rights at all, and for a broker that does not tell (before 2.3).
    """
    with mapped_errors(f"describing {sessions.address}"):
        asked = sessions.admin().describe_cluster(
            include_authorized_operations=True, request_timeout=sessions.config.connect_timeout_s
        )
    allowed = sessions.answer(asked, f"describing {sessions.address}").authorized_operations
    return AclOperation.DESCRIBE in (allowed or ())
