"""Clients: one for questions, kept for an endpoint's life, and a consumer for each read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from matih_ray.errors import (
    AuthenticationFailedError,
    MatihError,
    SourceTimeoutError,
    TlsHandshakeError,
)
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.connectivity import StagedTest
from matih_ray.sources.kafka.config import KafkaConfig
from matih_ray.sources.kafka.failures import Problems, mapped_errors
from matih_ray.sources.probe import DirectTls, probe

# How our connections are recognised in the brokers' logs and quotas.
CLIENT_ID = "matih-ray"
# No group is joined and no offset stored, but librdkafka's consumers must name one.
GROUP_ID = "matih-ray-unused"
# Between two looks at what the callback was told while waiting for an answer.
STEP_S = 0.5
# What a consumer reads ahead: enough for the next batch, little beside a batch's own memory.
AHEAD_KBYTES = 32 * 1024
# Connections closed after the greeting until it is clear that a login is wanted: one or two may be
# a broker's that restarts.
MAX_CLOSINGS = 5


class Sessions:
    """The clients of one endpoint, connected on first use."""

    def __init__(self, spec: EndpointSpec) -> None:
        self.config = KafkaConfig.from_json(dict(spec.config))
        self._password = spec.secrets.get("password")
        self._policy = spec.host_policy
        self._admin: AdminClient | None = None
        self._problems = Problems()  # the admin's

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"{self.config.host}:{self.config.port}"

    def admin(self) -> AdminClient:
        """The client for questions, connected.

        Raises:
            SourceError: With one of the stable connectivity codes.
            HostNotAllowedError: A broker is where the operator allows no source.
        """
        if self._admin is None:
            self._problems = Problems()
            self._admin = self._connected(self._problems)
        return self._admin

    def ping(self) -> tuple[float, str]:
        """Log in with a new client; milliseconds until it answered, and the cluster's name."""
        started = time.monotonic()
        admin = self._connected(Problems())
        latency_ms = (time.monotonic() - started) * 1000
        with mapped_errors(f"testing {self.address}"):
            cluster = admin.cluster_id(timeout=self.config.connect_timeout_s)
        return latency_ms, f"Apache Kafka, cluster {cluster}"

    def answer(self, future: futures.Future[Any], doing: str) -> Any:
        """What a question to `admin` came to.

        Raises:
            SourceError: It failed, or took too long.
        """
        deadline = time.monotonic() + self.config.connect_timeout_s
        while True:
            try:
                with mapped_errors(doing):
                    return future.result(STEP_S)
            except futures.TimeoutError:
                self.admin().poll(0)  # tells `problems`
            found = self._problems.final(doing)
            if found is None and time.monotonic() > deadline:
                found = SourceTimeoutError(f"{doing}: {self.address} did not answer in time")
            if found is not None:
                raise found

    @contextmanager
    def consumer(self, positions: list[TopicPartition]) -> Iterator[tuple[Consumer, Problems]]:
        """A consumer of these partitions from these offsets on, and what is told about it."""
        self.admin()  # names the cause if there is no connection
        problems = Problems()
        options = {
            **self._options(problems),
            "group.id": GROUP_ID,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "allow.auto.create.topics": False,
            "queued.max.messages.kbytes": AHEAD_KBYTES,
            # how long a full queue, and a partition without news, are left alone
            "fetch.queue.backoff.ms": 10,
            "fetch.wait.max.ms": 100,
        }
        consumer: Consumer = Consumer(options, logger=problems.logger)
        try:
            with mapped_errors(f"reading from {self.address}"):
                consumer.assign(positions)
            yield consumer, problems
        finally:
            consumer.close()

    def close(self) -> None:
        """Close the client. Safe to call twice."""
        self._admin = None  # it has no `close`: the last reference is what keeps it open

    def _connected(self, problems: Problems) -> AdminClient:
        """A client that has got the cluster's metadata, whose brokers are all allowed.

        librdkafka resolves names by itself, so a broker's addresses are checked and cannot be
        pinned. What brokers say about each other is checked too: it is what is connected to next.
        """
        self._check_reachable()
        with mapped_errors(f"cannot connect to {self.address}"):
            admin = AdminClient(self._options(problems), logger=problems.logger)
        for broker in self._metadata(admin, problems).brokers.values():
            self._policy.resolve_allowed(broker.host, broker.port)
        return admin

    def _check_reachable(self) -> None:
        """Connect to one of the brokers without librdkafka, which tries until its time is up and
        does not say which check of a certificate failed."""
        failed: MatihError | None = None
        for host, port in self._seeds():
            probed = self._probed(host, port)
            if probed.success:
                return
            failed = failed or probed.error
        if failed is not None:
            raise failed

    def _probed(self, host: str, port: int) -> StagedTest:
        config = self.config
        tls = None
        if config.ssl_mode != "disable":
            tls = DirectTls(config.ssl_mode, None if self._root is None else Path(self._root))
        return probe(
            host, port, self._policy, direct_tls=tls, timeout_s=float(config.connect_timeout_s)
        )

    def _metadata(self, admin: AdminClient, problems: Problems) -> Any:
        doing = f"cannot connect to {self.address}"
        deadline = time.monotonic() + self.config.connect_timeout_s
        while True:
            try:
                return admin.list_topics(timeout=STEP_S)
            except KafkaException:
                admin.poll(0)  # tells `problems`
            found = problems.final(doing) or self._shut_out(problems, doing)
            if found is None and time.monotonic() > deadline:
                # it was reached before, so that "brokers are down" only means that none answers
                found = self._other_protocol(doing) or problems.telling(doing)
                found = found or SourceTimeoutError(f"{doing}: it does not answer")
            if found is not None:
                raise found

    def _shut_out(self, problems: Problems, doing: str) -> MatihError | None:
        """Brokers do not say that they want a login: they close the connection."""
        if self.config.user is not None or problems.closings < MAX_CLOSINGS:
            return None
        return AuthenticationFailedError(
            f"{doing}: it closes every connection after its greeting, as brokers do where a login "
            "is wanted; give user and password"
        )

    def _other_protocol(self, doing: str) -> MatihError | None:
        """Nor do they say that they want TLS."""
        if self.config.ssl_mode != "disable":
            return None
        for host, port in self._seeds():
            tls = DirectTls("require")
            if probe(host, port, self._policy, direct_tls=tls, timeout_s=STEP_S).success:
                return TlsHandshakeError(
                    f"{doing}: {host}:{port} speaks TLS; set sslMode to verify-full"
                )
        return None

    def _seeds(self) -> list[tuple[str, int]]:
        others = [member.rpartition(":") for member in self.config.hosts]
        seeds = [(self.config.host, self.config.port)]
        return [*seeds, *((host, int(port)) for host, _, port in others)]

    @property
    def _root(self) -> str | None:
        root = self.config.ssl_root_cert
        return None if root == "system" else root

    def _options(self, problems: Problems) -> dict[str, Any]:
        config = self.config
        encrypted = config.ssl_mode != "disable"
        ends = "SSL" if encrypted else "PLAINTEXT"
        options: dict[str, Any] = {
            "bootstrap.servers": ",".join(f"{host}:{port}" for host, port in self._seeds()),
            "client.id": CLIENT_ID,
            "security.protocol": ends if config.user is None else f"SASL_{ends}",
            "socket.connection.setup.timeout.ms": max(1000, config.connect_timeout_s * 1000),
            "socket.keepalive.enable": True,
            "error_cb": problems.note,
        }
        if config.user is not None:
            options |= {
                "sasl.mechanism": config.sasl_mechanism,
                "sasl.username": config.user,
                "sasl.password": self._password or "",
            }
        if encrypted:
            options |= {
                "enable.ssl.certificate.verification": config.ssl_mode != "require",
                "ssl.endpoint.identification.algorithm": (
                    "https" if config.ssl_mode == "verify-full" else "none"
                ),
            }
            if self._root is not None and config.ssl_mode != "require":
                options["ssl.ca.location"] = self._root
        return options
