"""DynamoDB Local, the vendor's own emulator, with data in memory; and moto where keys matter.

It keeps the service's types, limits of pages, segments and expressions. What it lacks: it accepts
any well-formed key (permissions and wrong signatures need another server), has no throttling, and
counts items at once where the service takes hours. Its SQLite library is for Linux on x86-64.
moto checks signatures and IAM policies, and is used for those alone.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any

import boto3
import httpx

from matih_ray.testing.devstack.java import JavaLibrary, JavaServer
from matih_ray.testing.devstack.ports import free_port

LIBRARY = JavaLibrary("software.amazon.dynamodb", "DynamoDBLocal", "3.0.0", "dynamodb_local.sha256")
REGION = "eu-central-1"
ACCESS_KEY_ID = "AKIAMATIHDEVSTACK"
MOTO_START_TIMEOUT_S = 60.0
MOTO_STOP_TIMEOUT_S = 10.0
# What DynamoDB takes in one `BatchWriteItem`.
WRITE_ITEMS = 25


class DynamoServer:
    """A server of our own on loopback. Each access key and region has tables of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self._java = JavaServer("dynamodb_server.java", LIBRARY)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> DynamoServer:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: Java or Maven is missing, or the server did not start.
        """
        self._java.start(str(self.port))
        return self

    def stop(self) -> None:
        """Stop the server; harmless when it is not running."""
        self._java.stop()

    def kill(self) -> None:
        """End the server as a crash would; what it held is gone."""
        self._java.kill()

    def open_connections(self) -> int:
        """Connections that clients have open, by the operating system's count."""
        return self._java.open_connections()

    def client(self) -> Any:
        """boto3's low-level client, which the caller closes."""
        return boto3.client(
            "dynamodb",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key="any",  # noqa: S106 the emulator accepts every one
        )

    def create_table(self, name: str, *key: str) -> None:
        """A table with a key of one or two attributes, each as `name:type`."""
        parts = [part.split(":") for part in key]
        client = self.client()
        client.create_table(
            TableName=name,
            KeySchema=[
                {"AttributeName": attribute, "KeyType": kind}
                for (attribute, _), kind in zip(parts, ("HASH", "RANGE"), strict=False)
            ],
            AttributeDefinitions=[
                {"AttributeName": attribute, "AttributeType": type_} for attribute, type_ in parts
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        client.close()

    def put(self, name: str, items: list[dict[str, Any]]) -> None:
        """Write items, each as the service has it: `{"id": {"N": "1"}}`."""
        client = self.client()
        for start in range(0, len(items), WRITE_ITEMS):
            requests = [{"PutRequest": {"Item": i}} for i in items[start : start + WRITE_ITEMS]]
            answer = client.batch_write_item(RequestItems={name: requests})
            assert not answer["UnprocessedItems"]
        client.close()

    def __enter__(self) -> DynamoServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


class MotoServer:
    """moto on loopback, which from `enforce` on refuses what IAM would."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> MotoServer:
        """Start the server and wait until it answers.

        Raises:
            RuntimeError: The server did not start.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + MOTO_START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("moto did not start")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Stop the server; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(MOTO_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def create_user(self, name: str, *actions: str) -> tuple[str, str]:
        """A user who may do these actions; returns the access key's id and secret."""
        iam = boto3.client(
            "iam",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key="any",  # noqa: S106 nothing is enforced yet
        )
        iam.create_user(UserName=name)
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        iam.put_user_policy(UserName=name, PolicyName=name, PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        iam.close()
        return key["AccessKeyId"], key["SecretAccessKey"]

    def enforce(self) -> None:
        """Check keys, signatures and policies from now on."""
        httpx.post(f"{self.url}/moto-api/reset-auth", content=b"0").raise_for_status()

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def __enter__(self) -> MotoServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
