"""Google Cloud Storage through Google's client."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from google.api_core.exceptions import (
    Forbidden,
    GoogleAPICallError,
    GoogleAPIError,
    NotFound,
    PreconditionFailed,
    TooManyRequests,
    Unauthorized,
)
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud import storage
from google.cloud.storage.retry import DEFAULT_RETRY
from requests.exceptions import RequestException

from matih_ray.errors import (
    AuthenticationFailedError,
    DatabaseNotFoundError,
    SourceError,
    SourcePermissionError,
    SourceUnavailableError,
)
from matih_ray.model.value import Value
from matih_ray.sources.base import EndpointSpec
from matih_ray.sources.files.config import GcsConfig
from matih_ray.sources.files.source import FileSource
from matih_ray.sources.files.store import ObjectStore, StoredFile, changed
from matih_ray.sources.google_login import (
    SECRET_FIELDS,
    GuardedGoogleHttp,
    google_credentials,
    refuse_two_credentials,
)
from matih_ray.sources.guarded_requests import unanswered

# Requests are repeated, with growing pauses, until this has passed. What lasts longer is for the
# failure policy.
RETRY_S = 10.0
MAX_TEXT_CHARS = 300
# The client puts the request in front of what the service says.
_REQUEST = re.compile(r"^[A-Z]+ \S+: ")
_READ_ONLY = "https://www.googleapis.com/auth/devstorage.read_only"
_FIELDS = "items(name,size,updated,generation),nextPageToken"
_BY_KIND: tuple[tuple[type[GoogleAPICallError], type[SourceError]], ...] = (
    (Unauthorized, AuthenticationFailedError),
    (Forbidden, SourcePermissionError),
    (NotFound, DatabaseNotFoundError),
    (TooManyRequests, SourceUnavailableError),
)


class GcsStore:
    """A bucket through Google's client."""

    def __init__(self, client: storage.Client, bucket: str, timeout_s: tuple[int, int]) -> None:
        self._client = client
        self._bucket = client.bucket(bucket)
        self._where = f"bucket {bucket}"
        self._options: dict[str, Any] = {
            "timeout": timeout_s,
            "retry": DEFAULT_RETRY.with_timeout(RETRY_S),
        }

    def list_files(self, prefix: str, limit: int | None = None) -> Iterator[StoredFile]:
        """Files whose path begins with the prefix, up to 1,000 a page."""
        with _mapped_errors(f"cannot list {self._where}"):
            for blob in self._client.list_blobs(
                self._bucket, prefix=prefix, page_size=limit, fields=_FIELDS, **self._options
            ):
                yield _stored(blob)

    def stat(self, path: str) -> StoredFile | None:
        """One file as it is now, None if it is gone."""
        with _mapped_errors(f"cannot look at {path} in {self._where}"):
            blob = self._bucket.get_blob(path, **self._options)
        return None if blob is None else _stored(blob)

    def read(self, file: StoredFile, start: int, size: int) -> bytes:
        """Bytes of the file as it was listed."""
        with _mapped_errors(f"cannot read {file.path} in {self._where}"):
            try:
                return bytes(
                    self._bucket.blob(file.path).download_as_bytes(
                        start=start,
                        end=start + size - 1,
                        raw_download=True,  # as stored, whatever its content encoding
                        if_generation_match=int(file.version),
                        **self._options,
                    )
                )
            except (NotFound, PreconditionFailed):
                raise changed(file.path) from None

    def close(self) -> None:
        """Close connections. Safe to call twice."""
        self._client.close()


class GcsSource(FileSource):
    """One bucket of Google Cloud Storage."""

    type: ClassVar[str] = "GCS"
    vendor: ClassVar[str] = "files.gcs"
    config_model: ClassVar[builtins.type[Value]] = GcsConfig
    secret_fields: ClassVar[tuple[str, ...]] = SECRET_FIELDS

    def __init__(self, spec: EndpointSpec) -> None:
        """Check the configuration; nothing is connected yet.

        Raises:
            ValidationError: The configuration does not fit `GcsConfig`, or there are two
                credentials.
        """
        self._gcs = GcsConfig.from_json(dict(spec.config))
        self._spec = spec
        refuse_two_credentials(spec.secrets)
        super().__init__(spec.endpoint_id, self._gcs.bucket, self._gcs)

    def open_store(self) -> ObjectStore:
        """A new client with the connector's credential, never with this machine's own.

        Raises:
            AuthenticationFailedError: The connector has no usable credential and its bucket is not
                public.
        """
        config, policy = self._gcs, self._spec.host_policy
        credentials = google_credentials(
            self._spec.secrets, _READ_ONLY, f"bucket {config.bucket}", anonymous=config.anonymous
        )
        session = GuardedGoogleHttp(credentials, policy, config.ssl_root_cert)
        client = storage.Client(
            project="-",  # buckets are not asked for by project
            credentials=credentials,
            _http=session,
            client_options={
                "api_endpoint": config.endpoint_override or "https://storage.googleapis.com"
            },
        )
        timeout_s = (config.connect_timeout_s, config.read_timeout_s)
        return GcsStore(client, config.bucket, timeout_s)

    def _version(self) -> str:
        return "Google Cloud Storage JSON API v1"  # the protocol's version


@contextmanager
def _mapped_errors(doing: str) -> Iterator[None]:
    """Let the client's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except GoogleAPICallError as error:
        raise _answered(error, doing) from None
    except TransportError as error:
        raise unanswered(error, doing) from None
    except GoogleAuthError:
        raise AuthenticationFailedError(
            f"{doing}: Google does not accept the credential, or it has expired"
        ) from None
    except (GoogleAPIError, RequestException, ConnectionError) as error:
        raise unanswered(error, doing) from None


def _answered(error: GoogleAPICallError, doing: str) -> SourceError:
    kinds = (ours for theirs, ours in _BY_KIND if isinstance(error, theirs))
    otherwise = SourceUnavailableError if (error.code or 0) >= 500 else SourceError
    text = _REQUEST.sub("", str(error.message or error))[:MAX_TEXT_CHARS]
    return next(kinds, otherwise)(f"{doing}: {text}", status=int(error.code or 0))


def _stored(blob: Any) -> StoredFile:
    modified_s = int(blob.updated.timestamp())
    return StoredFile(modified_s, blob.name, blob.size, str(blob.generation))
