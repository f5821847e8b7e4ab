"""Object stores on loopback, one for each protocol, with objects in memory.

S3 by moto, which checks keys, signatures and policies once asked to. Azure Blob Storage by Azurite,
Microsoft's own emulator, which checks keys and shared access signatures. Google Cloud Storage by
gcp-storage-emulator, which checks neither credentials nor preconditions; `google_gate` in front of
it does. Times of objects are whole seconds in the first two, as with the services.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Any

import boto3
import httpx

from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION, MotoServer
from matih_ray.testing.devstack.node import NodePackage, find_node, installed
from matih_ray.testing.devstack.ports import free_port

SECRET_ACCESS_KEY = "a key nobody may see"  # noqa: S105 of an emulator that takes every one
# The account that Azurite has, with the key that its manual prints.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
AZURITE = NodePackage(
    "azurite",
    "3.35.0",
    "sha512-GzKmi+/5U0baNRjEEVtBMLpLuIKEJ0uSh0VWBzOI4qe4f5ziJyoZQmcTO7QhxZTF6+rphj7TZS3PtJY7uiiacA==",
)
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0


class S3Server(MotoServer):
    """moto's S3."""

    def client(self) -> Any:
        """boto3's low-level client, which the caller closes."""
        return boto3.client(
            "s3",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
        )

    def create_bucket(self, name: str) -> None:
        """An empty bucket."""
        client = self.client()
        client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
        client.close()

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write one object."""
        client = self.client()
        client.put_object(Bucket=bucket, Key=key, Body=data)
        client.close()


class _Program:
    """A program that listens on a port of loopback until it is stopped."""

    name: str

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """How it is started."""
        raise NotImplementedError

    def start(self) -> Any:
        """Start it and wait until it takes connections.

        Raises:
            RuntimeError: It did not start.
        """
        log = Path(tempfile.mkdtemp(prefix=f"matih-{self.name}-")) / "log"
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                self.command(),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.name} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Stop it; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Any:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class AzuriteServer(_Program):
    """Azurite's blob service; with certificate and key (PEM files) over TLS."""

    name = "azurite"

    def __init__(self, certificate: Path | None = None, key: Path | None = None) -> None:
        super().__init__()
        self._tls = [] if certificate is None else ["--cert", str(certificate), "--key", str(key)]

    @property
    def url(self) -> str:
        """Where its account is."""
        scheme = "https" if self._tls else "http"
        return f"{scheme}://127.0.0.1:{self.port}/{ACCOUNT}"

    def command(self) -> list[str]:
        """Azurite's program for blobs alone, in memory."""
        program = installed(AZURITE) / "dist" / "src" / "blob" / "main.js"
        return [
            find_node(), str(program), "--blobHost", "127.0.0.1", "--blobPort", str(self.port),
            "--inMemoryPersistence", "--silent", "--skipApiVersionCheck", "--disableTelemetry",
            *self._tls,
        ]  # fmt: skip

    def create_bucket(self, name: str) -> None:
        """An empty container."""
        with self._client() as client:
            client.create_container(name)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write one blob."""
        with self._client() as client:
            client.get_blob_client(bucket, key).upload_blob(data, overwrite=True)

    def signature(self, bucket: str, permissions: str, *, hours: float = 1.0) -> str:
        """A shared access signature for a container: permissions like `rl`, valid for `hours`."""
        from azure.storage.blob import generate_container_sas

        now = datetime.now(timezone.utc)
        return generate_container_sas(
            ACCOUNT,
            bucket,
            account_key=ACCOUNT_KEY,
            permission=permissions,
            start=now - timedelta(days=1),
            expiry=now + timedelta(hours=hours),
        )

    def _client(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient(self.url, credential=ACCOUNT_KEY)


class GcsServer(_Program):
    """gcp-storage-emulator."""

    name = "gcp-storage-emulator"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """The emulator in memory."""
        return [
            sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1",
            f"--port={self.port}", "--in-memory", "--quiet",
        ]  # fmt: skip

    def create_bucket(self, name: str) -> None:
        """An empty bucket."""
        answer = httpx.post(f"{self.url}/storage/v1/b", json={"name": name}, trust_env=False)
        answer.raise_for_status()

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write one object."""
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        client = storage.Client(
            project="test",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": self.url},
        )
        client.bucket(bucket).blob(key).upload_from_string(data)
        client.close()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
