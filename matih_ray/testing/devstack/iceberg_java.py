"""Iceberg's own REST catalog for tests: Java's `RESTCatalogAdapter` over its JDBC catalog.

It judges every commit as Iceberg's reference implementation does. Tokens it gives to everybody and
looks at none; `iceberg_rest.Guard` is for that. Warehouses are on local disks.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType

from matih_ray.testing.devstack.java import JavaLibrary, JavaServer
from matih_ray.testing.devstack.ports import free_port

VERSION = "1.10.1"
LIBRARY = JavaLibrary(
    "org.apache.iceberg",
    "iceberg-core",
    VERSION,
    "iceberg_java.sha256",
    (
        f"org.apache.iceberg:iceberg-core:{VERSION}:tests",
        "org.eclipse.jetty:jetty-servlet:11.0.25",
        "org.xerial:sqlite-jdbc:3.50.3.0",
        "org.slf4j:slf4j-nop:2.0.17",
    ),
)


class IcebergJavaServer:
    """A REST catalog on a free loopback port."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or Path(tempfile.mkdtemp(prefix="matih-iceberg-"))
        self._java = JavaServer("iceberg_server.java", LIBRARY)
        self.port = free_port()

    @property
    def uri(self) -> str:
        """The catalog's address."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> IcebergJavaServer:
        self._java.start(str(self.port), f"file://{self._directory}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._java.stop()
