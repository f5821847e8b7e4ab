"""The one place where the driver's exceptions become ours. The code of the error decides.

ORA codes are the server's and the listener's ("Database Error Messages"), DPY codes the driver's
(its module `errors`). A failure to connect is DPY-6005, with what happened in its further lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import oracledb

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)

_CODE = re.compile(r"\b(?:ORA|DPY)-\d{4,5}\b")
_BY_CODE: dict[str, type[SourceError]] = {
    "ORA-01017": AuthenticationFailedError,
    "ORA-28000": AuthenticationFailedError,  # the account is locked
    "ORA-28001": AuthenticationFailedError,  # the password has expired
    "DPY-3015": AuthenticationFailedError,  # a password verifier that is too old
    "DPY-4001": AuthenticationFailedError,  # no credentials
    "ORA-12505": DatabaseNotFoundError,
    "ORA-12514": DatabaseNotFoundError,
    "DPY-6001": DatabaseNotFoundError,  # the service is not registered with the listener
    "DPY-6003": DatabaseNotFoundError,
    "ORA-01031": SourcePermissionError,
    "ORA-01045": SourcePermissionError,  # no right to open a session
    "ORA-41900": SourcePermissionError,
    "ORA-00904": SourceChangedError,  # invalid identifier
    "ORA-00942": SourceChangedError,  # no such table or view, or no right on it
    "ORA-01013": SourceTimeoutError,  # cancelled, and not by us
    "ORA-12170": SourceTimeoutError,
    "DPY-4024": SourceTimeoutError,
    "DPY-6000": ConnectionRefusedByHostError,  # by the listener
    "ORA-12541": ConnectionRefusedByHostError,
    "ORA-12660": TlsHandshakeError,  # the server wants its own encryption, which is no TLS
    "ORA-00018": SourceUnavailableError,  # too many sessions
    "ORA-00020": SourceUnavailableError,
    "ORA-01033": SourceUnavailableError,  # starting or stopping
    "ORA-01034": SourceUnavailableError,
    "ORA-01089": SourceUnavailableError,
    "ORA-01555": SourceUnavailableError,  # the snapshot is too old: another read gets another
    "ORA-01652": SourceUnavailableError,  # no space to sort in
    "DPY-1001": SourceUnavailableError,  # not connected
    "DPY-4011": SourceUnavailableError,  # the connection is closed
}
_BY_TEXT: tuple[tuple[str, type[SourceError]], ...] = (
    (r"SSL|certificate", TlsHandshakeError),
    (r"timed out", SourceTimeoutError),
    (r"Connection refused|unreachable|No route", ConnectionRefusedByHostError),
)
_CANNOT_CONNECT = "DPY-6005"


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let the driver's errors leave as `SourceError`s; `doing` opens the message."""
    try:
        yield
    except oracledb.Error as error:
        raise typed(error, doing) from None


def typed(error: oracledb.Error, doing: str) -> SourceError:
    """Our error for one of the driver's."""
    text = str(error)
    codes = list(dict.fromkeys(_CODE.findall(text)))
    kind = next((_BY_CODE[code] for code in codes if code in _BY_CODE), None)
    if kind is None and _CANNOT_CONNECT in codes:
        kind = next((kind for words, kind in _BY_TEXT if re.search(words, text)), None)
        kind = kind or SourceUnavailableError
    # the second line has the reason of what the first one says
    lines = [line for line in text.splitlines() if not line.startswith("Help:")]
    shown = lines[1] if codes[:1] == [_CANNOT_CONNECT] and len(lines) > 1 else lines[0]
    return (kind or SourceError)(f"{doing}: {shown}", code=codes[-1] if codes else None)
