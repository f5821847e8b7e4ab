"""The Kafka server that other tests rely on: starting, crashing, coming back, ending."""

from __future__ import annotations

import psutil
import pytest
from confluent_kafka import Consumer

from matih_ray.testing.devstack.kafka import KafkaServer
from tests.integration.kafka_lab import read, source_of


def test_what_was_acknowledged_survives_a_crash_and_nothing_survives_the_end():
    with KafkaServer() as server:
        server.create_topic("orders", 3, retention_ms="-1")
        server.produce("orders", ((b"%d" % n, b"v%d" % n) for n in range(300)))
        first = server.pid
        server.kill()
        assert not psutil.pid_exists(first)
        server.start()
        source = source_of(server)
        rows = read(source, "orders")
        source.close()
        assert {row["_key"]: row["_value"] for row in rows} == {
            b"%d" % n: b"v%d" % n for n in range(300)
        }
        assert {row["_partition"] for row in rows} == {0, 1, 2}
        second = server.pid
    assert not psutil.pid_exists(second)
    server.stop()  # harmless


def test_groups_share_partitions_and_keep_their_offsets():
    """What the source does not use, and streaming jobs may."""
    with KafkaServer() as server:
        server.create_topic("orders", 2)
        server.produce("orders", [b"%d" % n for n in range(100)])
        options = {
            "bootstrap.servers": server.bootstrap,
            "group.id": "g",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        consumer = Consumer(options)
        consumer.subscribe(["orders"])
        found = consumer.consume(100, 30)
        assert len(found) == 100
        consumer.commit(asynchronous=False)
        consumer.close()
        consumer = Consumer(options)
        consumer.subscribe(["orders"])
        server.produce("orders", [b"new"])
        (message,) = consumer.consume(1, 30)
        assert message.value() == b"new"
        consumer.close()


def test_a_message_that_is_refused_is_an_error():
    with KafkaServer() as server:
        server.create_topic("small", max_message_bytes="1000")
        with pytest.raises(RuntimeError, match="1 refused"):
            server.produce("small", [b"x" * 5000])
