"""S3 for the sink: pyarrow's filesystem for the files, and boto3 for the one conditional write.

`If-None-Match: *` of PutObject is S3's exclusive creation (since August 2024); of the stores that
speak its protocol only those that obey it can be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow import fs

from matih_ray.sinks.raw_files.storage import Storage

CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 60
# With growing pauses: some seconds. What lasts longer is for the failure policy.
MAX_ATTEMPTS = 4
# Accounts that one process keeps connections for.
MAX_CONNECTED = 64
KEYS = ("accessKeyId", "secretAccessKey", "sessionToken")
Keys = tuple[str | None, ...]
_TAKEN = frozenset({"PreconditionFailed", "412"})
# Somebody else is writing the same name at this moment; one of both wins.
_BUSY = "ConditionalRequestConflict"


@dataclass(frozen=True)
class S3Place:
    """A bucket, and how to reach it. Without keys the process's own credentials are used."""

    bucket: str
    region: str | None = None
    endpoint_override: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    def open(self, prefix: str) -> Storage:
        """The storage below a prefix of the bucket; connections are shared by the process."""
        root = "/".join(part for part in (self.bucket, prefix) if part)
        keys = tuple(self.secrets.get(name) for name in KEYS)
        filesystem = _filesystem(self.region, self.endpoint_override, keys)
        client = _client(self.region, self.endpoint_override, keys)
        return Storage(filesystem, root, S3Creation(client), renames=False)


@lru_cache(maxsize=MAX_CONNECTED)
def _filesystem(region: str | None, endpoint: str | None, keys: Keys) -> fs.FileSystem:
    given: dict[str, Any] = {
        **dict(zip(("access_key", "secret_key", "session_token"), keys, strict=True)),
        "region": region,
        "connect_timeout": CONNECT_TIMEOUT_S,
        "request_timeout": REQUEST_TIMEOUT_S,
        # small files in one request instead of three
        "allow_delayed_open": True,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=MAX_ATTEMPTS),
    }
    if endpoint is not None:
        parts = urlsplit(endpoint)
        given |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    return fs.S3FileSystem(**{name: value for name, value in given.items() if value})


@lru_cache(maxsize=MAX_CONNECTED)
def _client(region: str | None, endpoint: str | None, keys: Keys) -> Any:
    key_id, secret, token = keys
    # a session of its own: making clients of a shared one is not safe among threads
    return boto3.Session(botocore_session=botocore.session.Session()).client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=key_id,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=REQUEST_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
            s3={"addressing_style": "auto" if endpoint is None else "path"},
            # stores that only speak S3's protocol know no newer checksums
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@dataclass(frozen=True)
class S3Creation:
    """Conditional writes; see `ExclusiveCreation`.

    A repeated write whose first reply was lost meets its own object: content is compared, and no
    two committers write the same.
    """

    client: Any

    def create(self, path: str, data: bytes) -> bool:
        """See `ExclusiveCreation`. Raises `OSError` for everything that boto3 raises."""
        bucket, _, key = path.partition("/")
        try:
            for _ in range(MAX_ATTEMPTS):
                code = self._put(bucket, key, data)
                if code is None:
                    return True
                if code in _TAKEN:
                    found = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
                    return bool(found == data)
        except (BotoCoreError, ClientError) as error:
            raise OSError(_told(error)) from None
        raise OSError(f"the store is busy with {key}")

    def _put(self, bucket: str, key: str, data: bytes) -> str | None:
        """The refusal's code, None if it was written."""
        try:
            self.client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _TAKEN or code == _BUSY:
                return code
            raise
        return None


def _told(error: Exception) -> str:
    """An error in words; a refused signature is explained by S3 with what was signed."""
    if isinstance(error, ClientError):
        return f"S3: {error.response.get('Error', {}).get('Code', 'error')}"
    return f"S3: {type(error).__name__}: {error}"
