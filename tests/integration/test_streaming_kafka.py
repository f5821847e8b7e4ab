"""Tables of the `kafka` connector, against Apache Kafka itself."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from matih_ray.errors import (
    ConnectionRefusedByHostError,
    HostNotAllowedError,
    MatihError,
    SourceChangedError,
    SqlInvalidError,
    SqlNotSupportedError,
    StreamRowError,
)
from matih_ray.settings import Settings
from matih_ray.sinks.iceberg.catalog import CatalogConfig, open_catalog
from matih_ray.streaming.job import JobResult, Script
from matih_ray.streaming.sql.script import parse_script
from matih_ray.testing.devstack.kafka import KafkaServer

JOBS = Path(__file__).parents[2] / "jobs" / "sql"


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with KafkaServer() as server:
        yield server


@pytest.fixture
def topic(server: KafkaServer, request: pytest.FixtureRequest) -> str:
    name = request.node.name.translate(str.maketrans("[]", "--"))
    server.create_topic(name, 2)
    return name


def run(
    server: KafkaServer,
    topic: str,
    home: Path,
    options: dict[str, str] | None = None,
    columns: str = "n BIGINT",
    select: str = "n",
    **settings: object,
) -> tuple[JobResult, list[str]]:
    """Print what a bounded read of a topic selects."""
    given = {
        "connector": "kafka",
        "topic": topic,
        "properties.bootstrap.servers": server.bootstrap,
        "format": "json",
        "scan.startup.mode": "earliest-offset",
        "scan.bounded.mode": "latest-offset",
        **(options or {}),
    }
    told = ", ".join(f"'{key}' = '{text}'" for key, text in given.items() if text)
    types = ", ".join(f"c{at} STRING" for at in range(select.count(",") + 1))
    casts = ", ".join(f"CAST({one} AS STRING)" for one in select.split(","))
    text = (
        f"CREATE TABLE t ({columns}) WITH ({told});"
        f"CREATE TABLE p ({types}) WITH ('connector' = 'print');"
        f"INSERT INTO p SELECT {casts} FROM t;"
    )
    out = io.StringIO()
    script = Script(Settings(home=home, **settings), {}, out)
    (insert,) = script.prepare(parse_script(text, {}))
    return script.run(insert), [line[3:-1] for line in out.getvalue().splitlines()]


def numbered(first: int, last: int) -> list[bytes]:
    return [b'{"n": %d}' % n for n in range(first, last)]


def ints(lines: list[str]) -> list[int]:
    return sorted(int(line) for line in lines)


def test_all_messages_of_all_partitions_come_once_and_in_order(
    server: KafkaServer, topic: str, tmp_path: Path
):
    server.produce(topic, numbered(0, 30_000), 0)
    server.produce(topic, numbered(30_000, 40_000), 1)
    result, lines = run(server, topic, tmp_path)
    assert ints(lines) == list(range(40_000))
    assert [int(line) for line in lines if int(line) < 30_000] == list(range(30_000))
    assert result.counts.read == 40_000


@pytest.mark.parametrize(
    ("startup", "expected"),
    [
        ({"scan.startup.mode": "earliest-offset"}, [*range(10), *range(10, 15)]),
        ({"scan.startup.mode": "latest-offset"}, []),
        (
            {
                "scan.startup.mode": "timestamp",
                "scan.startup.timestamp-millis": "2000",
            },
            [*range(5, 10), *range(12, 15)],
        ),
        (
            {
                "scan.startup.mode": "specific-offsets",
                "scan.startup.specific-offsets": "partition:0,offset:8;partition:1,offset:4",
            },
            [8, 9, 14],
        ),
        (
            {"scan.startup.mode": "group-offsets", "properties.auto.offset.reset": "latest"},
            [3, 4, 5, 6, 7, 8, 9],
        ),
        (
            {"scan.startup.mode": "group-offsets", "properties.auto.offset.reset": "earliest"},
            [3, 4, 5, 6, 7, 8, 9, *range(10, 15)],
        ),
    ],
)
def test_reading_starts_where_the_mode_says(
    server: KafkaServer, topic: str, startup: dict[str, str], expected: list[int], tmp_path: Path
):
    server.produce(topic, numbered(0, 5), 0, timestamp_ms=1000)
    server.produce(topic, numbered(5, 10), 0, timestamp_ms=2000)
    server.produce(topic, numbered(10, 12), 1, timestamp_ms=1000)
    server.produce(topic, numbered(12, 15), 1, timestamp_ms=3000)
    group = f"group-{topic}"
    commit(server, group, topic, 0, 3)
    _, lines = run(server, topic, tmp_path, {"properties.group.id": group, **startup})
    assert ints(lines) == expected


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (
            {"scan.bounded.mode": "timestamp", "scan.bounded.timestamp-millis": "2000"},
            [*range(5), 10, 11],
        ),
        (
            {
                "scan.bounded.mode": "specific-offsets",
                "scan.bounded.specific-offsets": "partition:0,offset:8;partition:1,offset:1",
            },
            [*range(8), 10],
        ),
        ({"scan.bounded.mode": "group-offsets"}, [0, 1, 2, 10, 11, 12, 13]),
    ],
)
def test_reading_ends_where_the_mode_says(
    server: KafkaServer, topic: str, bound: dict[str, str], expected: list[int], tmp_path: Path
):
    server.produce(topic, numbered(0, 5), 0, timestamp_ms=1000)
    server.produce(topic, numbered(5, 10), 0, timestamp_ms=2000)
    server.produce(topic, numbered(10, 12), 1, timestamp_ms=1000)
    server.produce(topic, numbered(12, 15), 1, timestamp_ms=3000)
    group = f"group-{topic}"
    commit(server, group, topic, 0, 3)
    commit(server, group, topic, 1, 4)
    _, lines = run(server, topic, tmp_path, {"properties.group.id": group, **bound})
    assert ints(lines) == expected


def commit(server: KafkaServer, group: str, topic: str, partition: int, offset: int) -> None:
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, partition, offset)], asynchronous=False)
    consumer.close()


def test_a_group_without_offsets_says_what_to_do(server: KafkaServer, topic: str, tmp_path: Path):
    options = {"scan.startup.mode": "group-offsets", "properties.group.id": "new"}
    with pytest.raises(SqlInvalidError, match=r"auto\.offset\.reset"):
        run(server, topic, tmp_path, options)


def test_group_offsets_are_committed_when_rows_are(server: KafkaServer, topic: str, tmp_path: Path):
    server.produce(topic, numbered(0, 7), 0)
    run(server, topic, tmp_path, {"properties.group.id": f"g-{topic}"})
    consumer = Consumer({"bootstrap.servers": server.bootstrap, "group.id": f"g-{topic}"})
    places = [TopicPartition(topic, 0)]
    assert [one.offset for one in consumer.committed(places, timeout=10)] == [7]
    consumer.close()


def test_metadata_columns(server: KafkaServer, topic: str, tmp_path: Path):
    server.produce(topic, [b"{}", b'[{"n": 1}, {"n": 2}]', None, b'{"n": 3}'], 1, timestamp_ms=1500)
    columns = (
        "n BIGINT, `offset` BIGINT METADATA VIRTUAL, part INT METADATA FROM 'partition', "
        "at TIMESTAMP(3) METADATA FROM 'timestamp', kind STRING METADATA FROM 'timestamp-type', "
        "topic STRING METADATA"
    )
    _, lines = run(server, topic, tmp_path, None, columns, "n, `offset`, part, at, kind, topic")
    at = "1970-01-01 00:00:01.500, CreateTime"
    assert lines == [
        f"null, 0, 1, {at}, {topic}",
        f"1, 1, 1, {at}, {topic}",
        f"2, 1, 1, {at}, {topic}",
        f"3, 3, 1, {at}, {topic}",
    ]


def test_only_metadata_may_be_selected(server: KafkaServer, topic: str, tmp_path: Path):
    server.produce(topic, [b'{"n": 5}'], 0)
    columns = "n BIGINT, part INT METADATA FROM 'partition'"
    assert run(server, topic, tmp_path, None, columns, "part")[1] == ["0"]


@pytest.mark.parametrize(
    "bad",
    [b"{oops", b"", b"7", b'{"n": 1}\n{"n": 2}x', b'{"n": "x"}'],
    ids=["broken", "empty", "number", "two", "text"],
)
def test_unreadable_messages_stop_a_job_or_are_counted(
    server: KafkaServer, topic: str, bad: bytes, tmp_path: Path
):
    server.produce(topic, [*numbered(0, 50), bad, *numbered(50, 100)], 0)
    ignoring, lines = run(server, topic, tmp_path, {"json.ignore-parse-errors": "true"})
    rows = [line for line in lines if line != "null"]
    if bad.startswith(b'{"n": 1}'):  # what follows the first document is not looked at, as in Flink
        assert ints(rows) == sorted([*range(100), 1])
        return
    assert ints(rows) == list(range(100))
    assert (ignoring.counts.bad, len(lines)) == ((0, 101) if b'"x"' in bad else (1, 100))
    with pytest.raises(StreamRowError, match=rf"{topic}/0, offsets 0 to 100: .*cannot be read"):
        run(server, topic, tmp_path)


def test_documents_may_have_line_breaks(server: KafkaServer, topic: str, tmp_path: Path):
    values = [json.dumps({"n": n, "more": {"a": [1, {"b": 2}]}}, indent=2) for n in range(200)]
    server.produce(topic, [value.encode() for value in values], 0)
    assert ints(run(server, topic, tmp_path)[1]) == list(range(200))


def test_topics_by_pattern(server: KafkaServer, topic: str, tmp_path: Path):
    server.create_topic(f"{topic}-more")
    server.produce(topic, numbered(0, 3), 0)
    server.produce(f"{topic}-more", numbered(3, 5))
    options = {"topic": "", "topic-pattern": f"{topic}.*"}
    assert ints(run(server, topic, tmp_path, options)[1]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"topic": "no-such-topic"}, SourceChangedError),
        ({"scan.startup.mode": "somewhere"}, SqlInvalidError),
        ({"scan.startup.mode": "timestamp"}, SqlInvalidError),
        ({"properties.no.such.property": "1"}, SqlInvalidError),
        ({"properties.bootstrap.servers": "127.0.0.1:1"}, ConnectionRefusedByHostError),
        ({"properties.bootstrap.servers": "nowhere"}, SqlInvalidError),
        ({"format": "avro"}, SqlNotSupportedError),
        ({"scan.bounded.mode": "unbounded"}, SqlNotSupportedError),
        ({"key.format": "json"}, SqlNotSupportedError),
        ({"unheard-of": "1"}, SqlInvalidError),
        ({"properties.ssl.truststore.location": "/a.jks"}, SqlNotSupportedError),
        (
            {
                "scan.startup.mode": "specific-offsets",
                "scan.startup.specific-offsets": "partition:9,offset:1",
            },
            SqlInvalidError,
        ),
    ],
)
def test_wrong_options_are_named(
    server: KafkaServer,
    topic: str,
    options: dict[str, str],
    error: type[MatihError],
    tmp_path: Path,
):
    with pytest.raises(error):
        run(server, topic, tmp_path, options)


def test_brokers_may_only_be_where_the_operator_allows(
    server: KafkaServer, topic: str, tmp_path: Path
):
    with pytest.raises(HostNotAllowedError):
        run(server, topic, tmp_path, private_hosts=False)


EVENTS = {
    "agent-performance-agg": ("agent_traces_source", "agent_performance_metrics"),
    "llm-operations-agg": ("llm_ops_source", "llm_operations_metrics"),
    "session-analytics": ("state_changes_source", "session_analytics"),
}


@pytest.mark.parametrize("name", EVENTS)
def test_the_window_jobs_run_as_they_are_and_as_from_a_file(
    server: KafkaServer, topic: str, name: str, tmp_path: Path
):
    """The topic has partitions of its own order; nothing in it is late, so neither differs."""
    source, target = EVENTS[name]
    rows = [event(number) for number in range(4_000)]
    (tmp_path / "in.json").write_bytes(b"\n".join(rows))
    for partition in range(2):
        server.produce(topic, rows[partition::2], partition)
    kafka = {
        f"{source}.topic": topic,
        f"{source}.properties.bootstrap.servers": server.bootstrap,
        f"{source}.scan.startup.mode": "earliest-offset",
        f"{source}.scan.bounded.mode": "latest-offset",
    }
    file = {f"{source}.connector": "filesystem", f"{source}.path": str(tmp_path / "in.json")}
    found = [
        table_of(name, target, tmp_path / where, options)
        for where, options in (("kafka", kafka), ("file", file))
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 10


def event(number: int) -> bytes:
    """One that has the fields of all three sources."""
    at = datetime(2026, 1, 1) + timedelta(seconds=2 * number - 13 * (number % 2))  # noqa: DTZ001
    row = {
        "tenant_id": f"t{number % 3}", "entity_type": "session_phase", "to_state": "completed",
        "entity_id": f"s{number % 50}", "triggered_by": f"u{number % 7}",
        "metadata": {"duration_ms": number % 64, "turn_count": 2},
        "agent_id": f"a{number % 5}", "action": ("completed", "failed", "other")[number % 3],
        "latency_ms": number % 32, "tokens_input": number % 100, "tokens_output": None,
        "cost_usd": number % 8 / 8, "error_message": None if number % 9 else "oops",
        "provider": f"p{number % 2}" if number % 11 else None, "model": "m",
        "cache_hit": number % 2 == 0, "success": number % 5 > 0,
        "timestamp": at.isoformat(" ", "milliseconds"),
    }  # fmt: skip
    return json.dumps(row).encode()


def table_of(name: str, target: str, home: Path, options: dict[str, str]) -> list[str]:
    for file, given in ((f"tables/{target}", {}), (name, options)):
        script = Script(Settings(home=home), given, io.StringIO())
        inserts = script.prepare(parse_script((JOBS / f"{file}.sql").read_text(), {}))
        script.create_tables()
        for insert in inserts:
            assert script.run(insert).counts.late == 0
    catalog = open_catalog(CatalogConfig.from_settings(Settings(home=home)))
    table = catalog.load_table(("matih_analytics", target)).scan().to_arrow()
    return sorted(str(row) for row in table.to_pylist())


def test_a_login_in_the_words_of_java_works(tmp_path: Path):
    from confluent_kafka.admin import AclOperation
    from confluent_kafka.admin import ResourceType as Kind

    with KafkaServer({"reader": 'p"w\\'}) as server:
        server.create_topic("t")
        server.produce("t", numbered(0, 3))
        for operation in (AclOperation.READ, AclOperation.DESCRIBE):
            server.allow("reader", operation, "t")
        server.allow("reader", AclOperation.READ, "g", Kind.GROUP)
        options = {
            "properties.bootstrap.servers": f"127.0.0.1:{server.secure_port}",
            "properties.security.protocol": "SASL_PLAINTEXT",
            "properties.sasl.mechanism": "SCRAM-SHA-256",
            "properties.group.id": "g",
            "properties.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required "
                'username="reader" password="p\\"w\\\\";'
            ),
        }
        assert ints(run(server, "t", tmp_path, options)[1]) == [0, 1, 2]
