"""A MongoDB server: mongo-java-server, which speaks MongoDB's wire protocol, with data in memory.

No registry has MongoDB's own server. What this one lacks: storage, transactions, sessions, change
streams, majority reads, collations and most of the aggregation language. Logging in and privileges
are ours (`mongo_server.java`): SCRAM-SHA-256 as drivers do it, and databases that a user may see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from pymongo import MongoClient

from matih_ray.testing.devstack.java import JavaLibrary, JavaServer
from matih_ray.testing.devstack.ports import free_port

LIBRARY = JavaLibrary("de.bwaldvogel", "mongo-java-server", "1.47.0", "mongo_java_server.sha256")
# Its `$sample` sorts by a comparison that is random, which Java's newer sort notices and refuses.
RANDOM_ORDER = "-Djava.util.Arrays.useLegacyMergeSort=true"


@dataclass(frozen=True)
class MongoUser:
    """Who may log in. No `databases` means all of them."""

    password: str
    databases: tuple[str, ...] = ()


class MongoServer:
    """A server of our own on loopback. Without users nobody has to log in.

    `certificate` and `key` are PEM files (an EC key in PKCS 8); with them only TLS is spoken.
    """

    def __init__(
        self,
        users: Mapping[str, MongoUser] | None = None,
        *,
        certificate: Path | None = None,
        key: Path | None = None,
    ) -> None:
        self.host = "127.0.0.1"
        self.port = free_port()
        self._users = dict(users or {})
        self._certificate, self._key = certificate, key
        self._java = JavaServer("mongo_server.java", LIBRARY, RANDOM_ORDER)

    def start(self) -> MongoServer:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: Java or Maven is missing, or the server did not start.
        """
        tls = [str(self._certificate), str(self._key)] if self._certificate else []
        users = "".join(
            f"{name}\t{user.password}\t{','.join(user.databases)}\n"
            for name, user in self._users.items()
        )
        self._java.start(str(self.port), *tls, stdin=f"{users}\n")
        return self

    def stop(self) -> None:
        """Stop the server; harmless when it is not running."""
        self._java.stop()

    def kill(self) -> None:
        """End the server as a crash would; what it held is gone."""
        self._java.kill()

    def client(self, **options: Any) -> MongoClient[dict[str, Any]]:
        """A client, which the caller closes; `options` are pymongo's."""
        return MongoClient(self.host, self.port, directConnection=True, **options)

    def open_connections(self) -> int:
        """Connections that clients have open, by the operating system's count."""
        return self._java.open_connections()

    def __enter__(self) -> MongoServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
