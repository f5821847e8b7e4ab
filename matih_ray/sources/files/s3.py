"""S3, and stores that speak its protocol, through boto3."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

import boto3
import botocore
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

from matih_ray.errors import (
    AuthenticationFailedError,
    DatabaseNotFoundError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
)
from matih_ray.model.value import Value
from matih_ray.sources.aws_failures import MAX_TEXT_CHARS, code_of
from matih_ray.sources.aws_failures import mapped_errors as mapped_client_errors
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.files.config import S3Config
from matih_ray.sources.files.source import FileSource
from matih_ray.sources.files.store import ObjectStore, StoredFile, changed

# The client's own, with growing pauses: some seconds. What lasts longer is for the failure policy.
MAX_ATTEMPTS = 3
# Slices that one source may have under way in one process.
MAX_CONNECTIONS = 16
_PORTS = {"http": 80, "https": 443}
# Profiles of this machine's account are not the connector's. Each entry is the name in a file, the
# environment's, the default and a conversion.
_NOT_OURS = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html; a HEAD has its status only.
_BY_CODE: dict[str, type[SourceError]] = {
    "NoSuchBucket": DatabaseNotFoundError,
    "InvalidAccessKeyId": AuthenticationFailedError,
    "SignatureDoesNotMatch": AuthenticationFailedError,
    "InvalidClientTokenId": AuthenticationFailedError,
    "InvalidToken": AuthenticationFailedError,
    "ExpiredToken": AuthenticationFailedError,
    "TokenRefreshRequired": AuthenticationFailedError,
    "401": AuthenticationFailedError,
    "AccessDenied": SourcePermissionError,
    "AllAccessDisabled": SourcePermissionError,
    "AccountProblem": SourcePermissionError,
    "403": SourcePermissionError,
    "RequestTimeout": SourceTimeoutError,
    "SlowDown": SourceUnavailableError,
}


class S3Store:
    """A bucket through boto3's low-level client."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def list_files(self, prefix: str, limit: int | None = None) -> Iterator[StoredFile]:
        """Files whose path begins with the prefix, up to 1,000 a page."""
        request = {"Bucket": self._bucket, "Prefix": prefix, "MaxKeys": limit or 1000}
        while True:
            with _mapped_errors(f"cannot list bucket {self._bucket}"):
                page = self._client.list_objects_v2(**request)
            for found in page.get("Contents", ()):
                yield _stored(found["Key"], found["LastModified"], found["Size"], found["ETag"])
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def stat(self, path: str) -> StoredFile | None:
        """One file as it is now, None if it is gone."""
        with _mapped_errors(f"cannot look at {path} in bucket {self._bucket}"):
            try:
                found = self._client.head_object(Bucket=self._bucket, Key=path)
            except ClientError as error:
                if code_of(error) in ("404", "NoSuchKey"):
                    return None
                raise
        return _stored(path, found["LastModified"], found["ContentLength"], found["ETag"])

    def read(self, file: StoredFile, start: int, size: int) -> bytes:
        """Bytes of the file as it was listed."""
        with _mapped_errors(f"cannot read {file.path} in bucket {self._bucket}"):
            try:
                answer = self._client.get_object(
                    Bucket=self._bucket,
                    Key=file.path,
                    IfMatch=file.version,
                    Range=f"bytes={start}-{start + size - 1}",
                )
                return bytes(answer["Body"].read())
            except ClientError as error:
                if code_of(error) in ("404", "NoSuchKey", "412", "PreconditionFailed"):
                    raise changed(file.path) from None
                raise

    def close(self) -> None:
        """Close connections. Safe to call twice."""
        self._client.close()


class S3Source(FileSource):
    """One bucket of S3."""

    type: ClassVar[str] = "S3"
    vendor: ClassVar[str] = "files.s3"
    config_model: ClassVar[builtins.type[Value]] = S3Config
    secret_fields: ClassVar[tuple[str, ...]] = ("accessKeyId", "secretAccessKey", "sessionToken")

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `S3Config`.
        """
        self._s3 = S3Config.from_json(dict(spec.config))
        self._spec = spec
        super().__init__(spec.endpoint_id, self._s3.bucket, self._s3)

    def open_store(self) -> ObjectStore:
        """A new client with the connector's keys, never with this machine's own.

        Raises:
            AuthenticationFailedError: The connector has no keys and its bucket is not public.
            HostNotAllowedError: The operator does not allow the store's host.
        """
        config, secrets = self._s3, self._spec.secrets
        key, secret = secrets.get("accessKeyId"), secrets.get("secretAccessKey")
        if not config.anonymous and not (key and secret):
            raise AuthenticationFailedError(
                f"the connector to bucket {config.bucket} needs accessKeyId and secretAccessKey"
            )
        keys = {
            "aws_access_key_id": key,
            "aws_secret_access_key": secret,
            "aws_session_token": secrets.get("sessionToken"),
        }
        session = botocore.session.Session(session_vars=_NOT_OURS)
        with mapped_client_errors(f"cannot connect to bucket {config.bucket}"):
            client = boto3.Session(botocore_session=session).client(
                "s3",
                region_name=config.region,
                endpoint_url=config.endpoint_override,
                verify=config.ssl_root_cert or True,
                config=_client_config(config),
                **({} if config.anonymous else keys),
            )
        where = urlsplit(client.meta.endpoint_url)
        port = where.port or _PORTS[where.scheme]
        self._spec.host_policy.resolve_allowed(where.hostname or "", port)
        return S3Store(client, config.bucket)

    def _version(self) -> str:
        return "S3 2006-03-01"  # the protocol's version, which is all that there is


def _client_config(config: S3Config) -> Config:
    # the bucket's name is part of the host name only where AWS makes such names
    style = "auto" if config.endpoint_override is None else "path"
    return Config(
        connect_timeout=config.connect_timeout_s,
        read_timeout=config.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
        max_pool_connections=MAX_CONNECTIONS,
        ignore_configured_endpoint_urls=True,
        s3={"addressing_style": style},
        # stores that only speak S3's protocol know no newer checksums
        response_checksum_validation="when_required",
        signature_version=botocore.UNSIGNED if config.anonymous else None,
        proxies={},
    )


@contextmanager
def _mapped_errors(doing: str) -> Iterator[None]:
    """Let boto3's errors leave as `SourceError`s; `doing` opens the message."""
    with mapped_client_errors(doing):
        try:
            yield
        except ClientError as error:
            code = code_of(error)
            kind = _BY_CODE.get(code)
            if kind is None:
                raise
            text = str(error.response.get("Error", {}).get("Message", ""))
            if kind is AuthenticationFailedError:
                text = ""  # a refused signature is explained with what was signed
            raise kind(f"{doing}: {code} {text[:MAX_TEXT_CHARS]}".rstrip(), aws_code=code) from None


def _stored(path: str, modified: datetime, size: int, etag: str) -> StoredFile:
    return StoredFile(int(modified.timestamp()), path, size, etag.strip('"'))
