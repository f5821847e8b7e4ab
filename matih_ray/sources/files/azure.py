"""Azure Blob Storage through Microsoft's client."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import ClassVar

from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient, ExponentialRetry

from matih_ray.errors import (
    AuthenticationFailedError,
    DatabaseNotFoundError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    ValidationError,
)
from matih_ray.model.value import Value
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.files.config import AzureBlobConfig
from matih_ray.sources.files.source import FileSource
from matih_ray.sources.files.store import ObjectStore, StoredFile, changed
from matih_ray.sources.guarded_requests import guarded_session, unanswered

# Each after a longer pause: some seconds. What lasts longer is for the failure policy.
MAX_RETRIES = 2
FIRST_PAUSE_S = 1
# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and
# https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
_BY_CODE: dict[str, type[SourceError]] = {
    "AuthenticationFailed": AuthenticationFailedError,
    "InvalidAuthenticationInfo": AuthenticationFailedError,
    "NoAuthenticationInformation": AuthenticationFailedError,
    "AccountIsDisabled": SourcePermissionError,
    "ContainerNotFound": DatabaseNotFoundError,
    "ContainerBeingDeleted": DatabaseNotFoundError,
    "ContainerDisabled": DatabaseNotFoundError,
    # a container that is not public, or none at all: anonymous callers are not told which
    "ResourceNotFound": DatabaseNotFoundError,
    "PublicAccessNotPermitted": SourcePermissionError,
    "OperationTimedOut": SourceTimeoutError,
    "ServerBusy": SourceUnavailableError,
}
# Azurite's words where the service says `AuthenticationFailed`; both have the same sentence.
_REFUSED_SIGNATURE = "Server failed to authenticate the request"
_BY_STATUS: dict[int, type[SourceError]] = {
    401: AuthenticationFailedError,
    403: SourcePermissionError,
    408: SourceTimeoutError,
    429: SourceUnavailableError,
}


class AzureStore:
    """A container through its client."""

    def __init__(self, client: ContainerClient) -> None:
        self._client = client
        self._where = f"container {client.container_name} of {client.account_name}"

    def list_files(self, prefix: str, limit: int | None = None) -> Iterator[StoredFile]:
        """Files whose path begins with the prefix, up to 5,000 a page."""
        with _mapped_errors(f"cannot list {self._where}"):
            for found in self._client.list_blobs(
                name_starts_with=prefix, results_per_page=limit or 5000
            ):
                yield _stored(found.name, found.last_modified, found.size, found.etag)

    def stat(self, path: str) -> StoredFile | None:
        """One file as it is now, None if it is gone."""
        with _mapped_errors(f"cannot look at {path} in {self._where}"):
            try:
                found = self._client.get_blob_client(path).get_blob_properties()
            except ResourceNotFoundError:
                return None
        return _stored(path, found.last_modified, found.size, found.etag)

    def read(self, file: StoredFile, start: int, size: int) -> bytes:
        """Bytes of the file as it was listed."""
        with _mapped_errors(f"cannot read {file.path} in {self._where}"):
            try:
                return self._client.download_blob(
                    file.path,
                    offset=start,
                    length=size,
                    etag=f'"{file.version}"',
                    match_condition=MatchConditions.IfNotModified,
                    decompress=False,
                ).readall()
            except (ResourceNotFoundError, ResourceModifiedError):
                raise changed(file.path) from None

    def close(self) -> None:
        """Close connections. Safe to call twice."""
        self._client.close()


class AzureBlobSource(FileSource):
    """One container of a storage account."""

    type: ClassVar[str] = "AZURE_BLOB"
    vendor: ClassVar[str] = "files.azure"
    config_model: ClassVar[builtins.type[Value]] = AzureBlobConfig
    secret_fields: ClassVar[tuple[str, ...]] = ("accountKey", "sasToken")

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `AzureBlobConfig`, or there are two
                credentials.
        """
        self._azure = AzureBlobConfig.from_json(dict(spec.config))
        self._spec = spec
        if spec.secrets.get("accountKey") and spec.secrets.get("sasToken"):
            raise ValidationError(
                "give accountKey or sasToken, not both", field="credentials.sasToken"
            )
        super().__init__(spec.endpoint_id, self._azure.container, self._azure)

    def open_store(self) -> ObjectStore:
        """A new client with the connector's own credential.

        Raises:
            AuthenticationFailedError: The connector has no usable credential and its container is
                not public.
        """
        config = self._azure
        transport = RequestsTransport(
            session=guarded_session(self._spec.host_policy, config.ssl_root_cert),
            session_owner=True,
            connection_timeout=config.connect_timeout_s,
            read_timeout=config.read_timeout_s,
            connection_verify=config.ssl_root_cert or True,
            use_env_settings=False,
        )
        url = config.endpoint_override or f"https://{config.account}.blob.core.windows.net"
        client = ContainerClient(
            url.rstrip("/"),
            config.container,
            credential=self._credential(),
            transport=transport,
            retry_policy=ExponentialRetry(
                initial_backoff=FIRST_PAUSE_S,
                increment_base=2,
                retry_total=MAX_RETRIES,
                random_jitter_range=1,
            ),
        )
        return AzureStore(client)

    def _credential(self) -> AzureNamedKeyCredential | AzureSasCredential | None:
        if self._azure.anonymous:
            return None
        key, token = (self._spec.secrets.get(name) for name in ("accountKey", "sasToken"))
        if key:
            return AzureNamedKeyCredential(self._azure.account, key)
        if token:
            return AzureSasCredential(token.lstrip("?"))
        raise AuthenticationFailedError(
            f"the connector to {self._azure.account} needs an accountKey or a sasToken"
        )

    def _version(self) -> str:
        return "Azure Blob Storage"  # the service tells no version


@contextmanager
def _mapped_errors(doing: str) -> Iterator[None]:
    """Let the client's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except HttpResponseError as error:
        raise _answered(error, doing) from None
    except AzureError as error:
        raise unanswered(error, doing) from None


def _answered(error: HttpResponseError, doing: str) -> SourceError:
    """By the service's code alone: its text repeats what was signed."""
    named = getattr(error, "error_code", None) or ""
    code = str(getattr(named, "value", named))
    status = error.status_code or 0
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status)
    if isinstance(error, ClientAuthenticationError) and status not in _BY_STATUS:
        kind, code = AuthenticationFailedError, "the accountKey is not one"  # nothing was sent
    elif _REFUSED_SIGNATURE in str(error.message):
        kind = AuthenticationFailedError
    elif kind is None:
        kind = SourceUnavailableError if status >= 500 else SourceError
    return kind(f"{doing}: {code or error.reason or 'no reason given'}", status=status)


def _stored(path: str, modified: datetime, size: int, etag: str) -> StoredFile:
    return StoredFile(int(modified.timestamp()), path, size, etag.strip('"'))
