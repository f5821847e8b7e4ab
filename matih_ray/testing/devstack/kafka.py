"""Apache Kafka itself, one node with KRaft: the real broker, from Maven Central.

It always has a listener in clear text on loopback, for whoever sets a test up; with users or a
certificate a second one, which is what is tested. With users, logging in (PLAIN and SCRAM) and
access control lists are enforced there, and nobody may do anything until `allow` says so.

Data is on disk, so that a broker that was killed and started again has what it acknowledged. What
one node cannot show: leaders that move, and replicas that lag.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from matih_ray.testing.devstack.java import JavaLibrary, JavaServer
from matih_ray.testing.devstack.ports import free_port

LIBRARY = JavaLibrary("org.apache.kafka", "kafka_2.13", "4.1.1", "kafka.sha256")
# JavaServer's own is more; of two the last one counts.
HEAP = "-Xmx256m"
# An administrative request of an idle broker takes milliseconds; two busy cores take longer.
ADMIN_TIMEOUT_S = 30.0
FLUSH_TIMEOUT_S = 60.0
# The least that Kafka allows, and what drivers and servers agree on as safe.
SCRAM_ITERATIONS = 4096
# librdkafka's lines about brokers that went away, as they do in tests
_SILENT = logging.getLogger("librdkafka")
_SILENT.setLevel(logging.CRITICAL + 1)

_Answers = Mapping[Any, Future[Any]]
Header = tuple[str, bytes | None]
# Value, or key and value; None is a tombstone.
Message = bytes | None | tuple[bytes | None, bytes | None]


class KafkaServer:
    """A broker of our own on loopback.

    Args:
        users: Passwords by name; with any, the second listener wants a login.
        certificate: PEM file; with one, the second listener speaks TLS only.
        key: PEM file (PKCS 8) of the certificate's key.
        host: What clients are told to connect to on the second listener.
        properties: More of the broker's configuration, or other values for ours.
    """

    def __init__(
        self,
        users: Mapping[str, str] | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
        host: str = "127.0.0.1",
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self.host = host
        self.open_port = free_port()
        self.secure_port = free_port()
        self._controller_port = free_port()
        self._users = dict(users or {})
        self._tls = (certificate, key) if certificate and key else None
        self._properties = dict(properties or {})
        # a minus in front would be taken for an option
        random_id = urlsafe_b64encode(uuid.uuid4().bytes).decode()
        self._cluster_id = random_id.rstrip("=").replace("-", "_")
        self._directory = Path(tempfile.mkdtemp(prefix="matih-kafka-"))
        self._java = JavaServer("kafka_server.java", LIBRARY, HEAP)
        self._known_users = False

    @property
    def port(self) -> int:
        """The port that a test connects to: of the second listener if there is one."""
        return self.secure_port if self._users or self._tls else self.open_port

    @property
    def bootstrap(self) -> str:
        """`bootstrap.servers` of the clear-text listener."""
        return f"127.0.0.1:{self.open_port}"

    @property
    def pid(self) -> int:
        """The broker's process."""
        return self._java.pid

    def start(self) -> KafkaServer:
        """Start the broker, or start it again with the data it had, and wait until it answers.

        Raises:
            RuntimeError: Java or Maven is missing, or the broker did not start.
        """
        path = self._directory / "server.properties"
        lines = [f"{name}={_escaped(value)}" for name, value in self._configuration().items()]
        path.write_text("\n".join(lines))
        path.chmod(0o600)  # it holds passwords
        self._java.start(str(path), self._cluster_id)
        if self._users and not self._known_users:
            self._add_scram_users()
            self._known_users = True
        return self

    def stop(self) -> None:
        """Stop the broker and remove its data; harmless when it is not running."""
        self._java.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def kill(self) -> None:
        """End the broker as a crash would; `start` brings it back with its data."""
        self._java.kill()

    def open_connections(self) -> int:
        """Connections that are open, the broker's own to itself included."""
        return self._java.open_connections()

    # --- topics ------------------------------------------------------------------------------

    def admin(self) -> AdminClient:
        """A client that may do everything."""
        return AdminClient({"bootstrap.servers": self.bootstrap}, logger=_SILENT)

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> None:
        """A topic; `config` has underscores for dots: `cleanup_policy="compact"`."""
        settings = {key.replace("_", "."): value for key, value in config.items()}
        topic = NewTopic(name, partitions, 1, config=settings)
        self._ask(lambda admin: admin.create_topics([topic]))

    def delete_topic(self, name: str) -> None:
        """Remove a topic. Its name is free once nobody sees it any more."""
        self._ask(lambda admin: admin.delete_topics([name]))
        admin = self.admin()
        while name in admin.list_topics(timeout=ADMIN_TIMEOUT_S).topics:
            pass

    def add_partitions(self, name: str, total: int) -> None:
        """Give a topic more partitions."""
        self._ask(lambda admin: admin.create_partitions([NewPartitions(name, total)]))

    def configure_topic(self, name: str, **config: str) -> None:
        """Change a topic's configuration; names as in `create_topic`."""
        entries = [
            ConfigEntry(key.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=entries)
        self._ask(lambda admin: admin.incremental_alter_configs([resource]))

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Remove what is below an offset, as retention does in time."""
        found = TopicPartition(topic, partition, before)
        self._ask(lambda admin: admin.delete_records([found]))

    # --- messages ----------------------------------------------------------------------------

    def producer(self, **options: Any) -> Producer:
        """A producer; `options` are librdkafka's, with underscores for dots."""
        given = {name.replace("_", "."): value for name, value in options.items()}
        return Producer(
            {"bootstrap.servers": self.bootstrap, "linger.ms": 5, **given}, logger=_SILENT
        )

    def produce(
        self,
        topic: str,
        messages: Iterable[Message],
        partition: int | None = None,
        *,
        timestamp_ms: int | None = None,
        headers: Sequence[Header] | None = None,
    ) -> None:
        """Write messages and wait until the broker has them.

        Without a partition they go where their keys lead; without a timestamp they have now.

        Raises:
            RuntimeError: The broker did not take one.
        """
        producer = self.producer()
        problems: list[str] = []
        options: dict[str, Any] = {} if partition is None else {"partition": partition}
        if timestamp_ms is not None:
            options["timestamp"] = timestamp_ms
        if headers is not None:
            options["headers"] = list(headers)

        def delivered(error: object, _message: object) -> None:
            if error is not None:
                problems.append(str(error))

        for message in messages:
            key, value = message if isinstance(message, tuple) else (None, message)
            while True:
                try:
                    producer.produce(topic, value, key, on_delivery=delivered, **options)
                    break
                except BufferError:  # the queue is full: let some go
                    producer.poll(0.1)
            producer.poll(0)
        left = producer.flush(FLUSH_TIMEOUT_S)
        if left or problems:
            raise RuntimeError(f"{left} not sent, {len(problems)} refused: {problems[:1]}")

    # --- access ------------------------------------------------------------------------------

    def allow(
        self,
        user: str,
        operation: AclOperation,
        name: str,
        kind: ResourceType = ResourceType.TOPIC,
    ) -> None:
        """Let a user do something with a topic, or another resource; `*` is every one."""
        binding = AclBinding(
            kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation,
            AclPermissionType.ALLOW,
        )  # fmt: skip
        self._ask(lambda admin: admin.create_acls([binding]))

    def _add_scram_users(self) -> None:
        changes = [
            UserScramCredentialUpsertion(
                name, ScramCredentialInfo(mechanism, SCRAM_ITERATIONS), password.encode()
            )
            for name, password in self._users.items()
            for mechanism in (ScramMechanism.SCRAM_SHA_256, ScramMechanism.SCRAM_SHA_512)
        ]
        for change in changes:  # one request may change a user once
            self._ask(partial(_alter, change))

    def _ask(self, ask: Callable[[AdminClient], _Answers]) -> None:
        """Wait for all that a client was asked for; it must live until then."""
        admin = self.admin()
        for future in ask(admin).values():
            future.result(ADMIN_TIMEOUT_S)

    # --- configuration -----------------------------------------------------------------------

    def _configuration(self) -> dict[str, str]:
        node = f"127.0.0.1:{self._controller_port}"
        listeners = {"OPEN": f"127.0.0.1:{self.open_port}"}
        advertised = dict(listeners)
        protocols = {"OPEN": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        if self._users or self._tls:
            listeners["SECURE"] = f"127.0.0.1:{self.secure_port}"
            advertised["SECURE"] = f"{self.host}:{self.secure_port}"
            ends = "SSL" if self._tls else "PLAINTEXT"
            protocols["SECURE"] = f"SASL_{ends}" if self._users else ends
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{node}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "OPEN",
            "listeners": _joined("://", {**listeners, "CONTROLLER": node}),
            "advertised.listeners": _joined("://", advertised),
            "listener.security.protocol.map": _joined(":", protocols),
            "log.dirs": str(self._directory / "data"),
            # topics are made on purpose
            "auto.create.topics.enable": "false",
            # one node, small and quick: no copies, few threads, no waiting for others
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # a broker that was killed is waited for as long as its session would have lasted
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "200",
            "num.network.threads": "2",
            "num.io.threads": "2",
            "log.cleaner.dedupe.buffer.size": "4194304",
            "log.cleaner.backoff.ms": "200",
            **self._security(),
            **self._properties,
        }

    def _security(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if self._tls:
            certificate, key = self._tls
            both = self._directory / "server.pem"
            both.write_text(key.read_text() + certificate.read_text())
            found |= {
                "listener.name.secure.ssl.keystore.type": "PEM",
                "listener.name.secure.ssl.keystore.location": str(both),
            }
        if self._users:
            modules = "org.apache.kafka.common.security"
            passwords = " ".join(
                f'user_{name}="{_quoted(password)}"' for name, password in self._users.items()
            )
            scram = f"{modules}.scram.ScramLoginModule required;"
            prefix = "listener.name.secure"
            found |= {
                f"{prefix}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
                f"{prefix}.plain.sasl.jaas.config": (
                    f"{modules}.plain.PlainLoginModule required {passwords};"
                ),
                f"{prefix}.scram-sha-256.sasl.jaas.config": scram,
                f"{prefix}.scram-sha-512.sasl.jaas.config": scram,
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                # the broker itself, and the clear-text listener
                "super.users": "User:ANONYMOUS",
            }
        return found

    def __enter__(self) -> KafkaServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _alter(change: UserScramCredentialUpsertion, admin: AdminClient) -> _Answers:
    found: _Answers = admin.alter_user_scram_credentials([change])
    return found


def _joined(between: str, parts: Mapping[str, str]) -> str:
    return ",".join(f"{name}{between}{value}" for name, value in parts.items())


def _escaped(value: str) -> str:
    """A value in a properties file, where a backslash escapes."""
    return value.replace("\\", "\\\\")


def _quoted(value: str) -> str:
    """A value in a JAAS configuration, within double quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"')
