"""Kafka under the source contract: JSON and bytes, several partitions, gaps of transactions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation

from matih_ray.model.ids import EndpointId, TenantId
from matih_ray.model.policy import IngestionPolicy, RunMode
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.kafka import KafkaSource
from matih_ray.testing.contracts.source import SourceCase, SourceContract
from matih_ray.testing.devstack.kafka import KafkaServer, Message

PASSWORD = "a password nobody may see"
# More than one page, so that a read is under way when it is abandoned.
MESSAGES = 12_000
INCREMENTAL = IngestionPolicy(run_mode=RunMode.INCREMENTAL)


def order(n: int) -> Message:
    value: dict[str, Any] = {"id": n, "lines": [{"sku": f"s{n % 7}"}], "note": "ñ" * (n % 90)}
    if n % 3:
        value["amount"] = n + 0.5
    text: bytes | None = json.dumps(value).encode()
    if n % 50 == 0:
        text = None if n % 100 else b"no JSON at all"
    return str(n % 400).encode(), text


def write_with_gaps(server: KafkaServer, topic: str) -> None:
    """Transactions that commit and that do not, so that some offsets hold no message."""
    producer = server.producer(transactional_id="gaps")
    producer.init_transactions(30)
    for number in range(12):
        producer.begin_transaction()
        for n in range(250):
            producer.produce(topic, b"%d of %d" % (n, number), partition=number % 2)
        if number % 3 == 2:
            producer.flush(30)
            producer.abort_transaction(30)
        else:
            producer.commit_transaction(30)


@pytest.fixture(scope="module")
def server() -> Iterator[KafkaServer]:
    with KafkaServer({"reader": PASSWORD}) as server:
        server.create_topic("orders", 4)
        server.create_topic("nothing", 2)
        server.create_topic("gaps", 2)
        server.create_topic("forbidden")
        for topic in ("orders", "nothing", "gaps"):
            server.allow("reader", AclOperation.READ, topic)
        server.produce("orders", (order(n) for n in range(MESSAGES)))
        write_with_gaps(server, "gaps")
        yield server


def case_of(
    server: KafkaServer, unit_id: str, *policies: IngestionPolicy, target_rows: int
) -> SourceCase:
    config = {"format": "json"} if unit_id == "orders" else {}
    spec = EndpointSpec(
        tenant_id=TenantId("tenant"),
        endpoint_id=EndpointId("endpoint"),
        name="test",
        type="KAFKA",
        config={
            "host": server.host,
            "port": server.port,
            "user": "reader",
            "topics": [{"name": unit_id, **config}],
        },
        secrets={"password": PASSWORD},
    )
    return SourceCase(
        build=lambda: KafkaSource(spec),
        unit_id=unit_id,
        unknown_unit_id="nowhere",
        empty_unit_id="nothing",
        target_rows=target_rows,
        policies=policies,
        open_connections=server.open_connections,
        secret=PASSWORD,
    )


class TestJson(SourceContract):
    @pytest.fixture
    def case(self, server: KafkaServer) -> SourceCase:
        return case_of(server, "orders", INCREMENTAL, target_rows=1700)


class TestBytesWithGaps(SourceContract):
    @pytest.fixture
    def case(self, server: KafkaServer) -> SourceCase:
        return case_of(server, "gaps", INCREMENTAL, target_rows=300)


class TestFullRun(SourceContract):
    # a full run leaves a cursor to an incremental one, and never starts at one itself
    test_resuming_from_any_prefix_loses_nothing = None

    @pytest.fixture
    def case(self, server: KafkaServer) -> SourceCase:
        return case_of(server, "orders", IngestionPolicy(), target_rows=2500)
