"""The one place where librdkafka's errors become ours.

A broker's answer has a code (Kafka's protocol guide), librdkafka's own have negative ones. Why a
connection could not be made is told to a callback and not to the caller, so it is kept (`Problems`)
until the caller's time is up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from matih_ray.errors import (
    AuthenticationFailedError,
    ConfigurationError,
    ConnectionRefusedByHostError,
    DnsResolutionError,
    MatihError,
    SourceChangedError,
    SourceError,
    SourcePermissionError,
    SourceTimeoutError,
    SourceUnavailableError,
    TlsHandshakeError,
)

_BY_CODE: dict[int, type[MatihError]] = {
    KafkaError.OFFSET_OUT_OF_RANGE: SourceChangedError,
    KafkaError._AUTO_OFFSET_RESET: SourceChangedError,  # noqa: SLF001 the library's public name
    KafkaError.UNKNOWN_TOPIC_OR_PART: SourceChangedError,
    KafkaError.UNKNOWN_TOPIC_ID: SourceChangedError,
    KafkaError.INCONSISTENT_TOPIC_ID: SourceChangedError,
    KafkaError._UNKNOWN_TOPIC: SourceChangedError,  # noqa: SLF001 as above
    KafkaError._UNKNOWN_PARTITION: SourceChangedError,  # noqa: SLF001 as above
    KafkaError.TOPIC_AUTHORIZATION_FAILED: SourcePermissionError,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: SourcePermissionError,
    KafkaError.SASL_AUTHENTICATION_FAILED: AuthenticationFailedError,
    KafkaError._AUTHENTICATION: AuthenticationFailedError,  # noqa: SLF001 as above
    KafkaError.UNSUPPORTED_SASL_MECHANISM: AuthenticationFailedError,
    KafkaError._SSL: TlsHandshakeError,  # noqa: SLF001 as above
    KafkaError._RESOLVE: DnsResolutionError,  # noqa: SLF001 as above
    KafkaError._TIMED_OUT: SourceTimeoutError,  # noqa: SLF001 as above
    KafkaError._TIMED_OUT_QUEUE: SourceTimeoutError,  # noqa: SLF001 as above
    KafkaError.REQUEST_TIMED_OUT: SourceTimeoutError,
    KafkaError._TRANSPORT: SourceUnavailableError,  # noqa: SLF001 as above
    KafkaError._ALL_BROKERS_DOWN: SourceUnavailableError,  # noqa: SLF001 as above
    KafkaError._INVALID_ARG: ConfigurationError,  # noqa: SLF001 as above
}
# Words of librdkafka for connections that were closed without an answer, the most telling first.
_BY_TEXT: tuple[tuple[str, type[MatihError]], ...] = (
    ("SSL", TlsHandshakeError),
    ("SASL", AuthenticationFailedError),
    ("Connection refused", ConnectionRefusedByHostError),
    ("timed out", SourceTimeoutError),
)
# What no further attempt will change.
FINAL = (AuthenticationFailedError, TlsHandshakeError, ConfigurationError)
MAX_TEXT_CHARS = 300
# Of the many attempts that librdkafka makes, those that are kept.
MAX_PROBLEMS = 20


class Problems(logging.Handler):
    """What librdkafka told about connections, of which the most telling counts.

    Apart from the client that it is told by, so that the two make no cycle and the client is closed
    as soon as nobody has it. `logger` is for that client alone: librdkafka would write to standard
    error otherwise, several lines a second while a broker is away. `closings` counts connections
    that a broker closed after its greeting.
    """

    def __init__(self) -> None:
        super().__init__()
        self._errors: list[KafkaError] = []
        self.closings = 0
        self.logger = logging.Logger("librdkafka")  # noqa: LOG001 one for each client, not global
        self.logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """A line of librdkafka's log."""
        text = record.getMessage()
        self.closings += "Disconnected" in text and "in state UP" in text

    def note(self, error: KafkaError) -> None:
        """The callback `error_cb`."""
        if len(self._errors) < MAX_PROBLEMS:
            self._errors.append(error)

    def final(self, doing: str) -> MatihError | None:
        """The first problem that no further attempt will change."""
        found = (typed(error, doing) for error in self._errors)
        return next((error for error in found if isinstance(error, FINAL)), None)

    def telling(self, doing: str) -> MatihError | None:
        """The first problem that says more than that there is no connection."""
        found = (typed(error, doing) for error in self._errors)
        return next((error for error in found if type(error) is not SourceUnavailableError), None)

    def first(self, doing: str) -> MatihError | None:
        """The problem to tell when time is up."""
        return self.final(doing) or next((typed(error, doing) for error in self._errors), None)


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """Let librdkafka's errors leave as ours; `doing` opens the message."""
    try:
        yield
    except KafkaException as error:
        raise typed(error.args[0], doing) from None


def typed(error: KafkaError, doing: str) -> MatihError:
    """Our error for one of librdkafka's."""
    text = error.str()[:MAX_TEXT_CHARS]
    kind = _BY_CODE.get(error.code())
    if kind is None or kind is SourceUnavailableError:
        kind = next((kind for words, kind in _BY_TEXT if words in text), kind)
    if kind is None:
        kind = SourceUnavailableError if error.retriable() else SourceError
    return kind(f"{doing}: {text}", kafka_code=error.code())
