"""The one place where boto3's exceptions become ours, for `dynamodb` and `files.s3`.

An answer of the service has a code. A connection that could not be made has none; there the
exceptions beneath it tell a name that is unknown from a port that is closed.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions
from urllib3.exceptions import NameResolutionError

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DnsResolutionError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)

_BY_CODE: dict[str, type[SourceError]] = {
    "AccessDenied": SourcePermissionError,
    "AccessDeniedException": SourcePermissionError,
    "ExpiredTokenException": AuthenticationFailedError,
    "IncompleteSignature": AuthenticationFailedError,
    "IncompleteSignatureException": AuthenticationFailedError,
    "InvalidClientTokenId": AuthenticationFailedError,
    "InvalidSignatureException": AuthenticationFailedError,
    "MissingAuthenticationToken": AuthenticationFailedError,
    "MissingAuthenticationTokenException": AuthenticationFailedError,
    "OptInRequired": SourcePermissionError,
    "SignatureDoesNotMatch": AuthenticationFailedError,
    "UnrecognizedClientException": AuthenticationFailedError,
    "InternalServerError": SourceUnavailableError,
    "LimitExceededException": SourceUnavailableError,
    "ProvisionedThroughputExceededException": SourceUnavailableError,
    "RequestLimitExceeded": SourceUnavailableError,
    "ServiceUnavailable": SourceUnavailableError,
    "ThrottlingException": SourceUnavailableError,
    "ResourceInUseException": SourceUnavailableError,
    "ResourceNotFoundException": SourceChangedError,
}
_XML_CODE = re.compile(r"<Code>(\w+)</Code>")
_XML_TEXT = re.compile(r"<Message>([^<]*)</Message>")
MAX_TEXT_CHARS = 300


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let boto3's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except exceptions.ClientError as error:
        raise _answered(error, doing) from None
    except exceptions.BotoCoreError as error:
        raise _unanswered(error, doing) from None


def code_of(error: exceptions.ClientError) -> str:
    """The service's word for what went wrong.

    boto3 does not find it in an answer in XML, which is what emulators and gateways refuse keys
    with, and shows the answer as the message instead.
    """
    told = error.response.get("Error", {})
    in_xml = _XML_CODE.search(str(told.get("Message", "")))
    return in_xml[1] if in_xml else str(told.get("Code", ""))


def _answered(error: exceptions.ClientError, doing: str) -> SourceError:
    code = code_of(error)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = _BY_CODE.get(code) or (SourceUnavailableError if status >= 500 else SourceError)
    text = str(error.response.get("Error", {}).get("Message", ""))
    if (in_xml := _XML_TEXT.search(text)) is not None:
        text = in_xml[1]
    if kind is AuthenticationFailedError:
        text = ""  # a refused signature is explained with what was signed
    return kind(f"{doing}: {code} {text[:MAX_TEXT_CHARS]}".rstrip(), aws_code=code)


def _unanswered(error: exceptions.BotoCoreError, doing: str) -> SourceError:
    kind: type[SourceError] = SourceError
    if isinstance(error, exceptions.SSLError):
        kind = TlsHandshakeError
    elif isinstance(error, exceptions.ConnectTimeoutError | exceptions.ReadTimeoutError):
        kind = SourceTimeoutError
    elif isinstance(error, exceptions.EndpointConnectionError):
        kind = DnsResolutionError if _is_unknown_name(error) else ConnectionRefusedByHostError
    elif isinstance(error, exceptions.HTTPClientError | exceptions.ResponseStreamingError):
        kind = SourceUnavailableError
    elif isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        kind = AuthenticationFailedError
    return kind(f"{doing}: {str(error)[:MAX_TEXT_CHARS]}")


def _is_unknown_name(error: BaseException) -> bool:
    """Whether a failed name resolution is among the exceptions beneath this one."""
    inner: object = getattr(error, "kwargs", {}).get("error", error)
    while isinstance(inner, BaseException):
        if isinstance(inner, socket.gaierror | NameResolutionError):
            return True
        inner = inner.__cause__ or inner.__context__
    return False
