"""Logs and metric names: what an operator sees of the runtime, the same in every process.

One log line is one JSON object (or one coloured line on a console) on stderr, with the tenant, run
and slice that were bound. `configure_logging` is called once per process, Ray workers included; it
costs microseconds and calling it again is harmless. Values under secret-looking names, and the user
information of URLs anywhere, are replaced before rendering. That is the last line of defence, not
the first: secrets do not belong in log calls. Tracebacks are rendered without local variables,
which could hold anything.

structlog writes to stderr itself instead of going through `logging`: Ray and Serve own the standard
library's handlers in their workers, and a line must not depend on what they did to them.

Metric names and units are constants here; the objects behind them belong to whoever has a metrics
library (`execution` has Ray's). May import `settings` only.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from types import TracebackType
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from matih_ray.settings import Settings

REDACTED = "***REDACTED***"
# Nested values below this depth are replaced as a whole: nothing we log on purpose is deeper.
MAX_REDACTION_DEPTH = 6
# Entries of one nested list or mapping that are looked at; the rest is counted, not shown.
MAX_REDACTION_ITEMS = 200

# --- metrics ---------------------------------------------------------------------------------
# Units are part of the meaning, not of the name, except where a number alone would be ambiguous.

METRIC_TAGS = ("tenant", "endpoint", "unit")
METRIC_ROWS = "matih_rows"  # rows committed, a counter
METRIC_BYTES = "matih_bytes"  # bytes committed, a counter
METRIC_SLICES = "matih_slices"  # slices committed, a counter
METRIC_COMMIT_SECONDS = "matih_commit_seconds"  # seconds per commit, a histogram
METRIC_COMPACTED_FILES = "matih_compacted_files"
METRIC_COMPACTED_BYTES = "matih_compacted_bytes"
METRIC_EXPIRED_SNAPSHOTS = "matih_expired_snapshots"
METRIC_ORPHAN_FILES = "matih_orphan_files"
METRIC_MAINTENANCE_FAILURES = "matih_maintenance_failures"
# Counters of table maintenance; their tag is the tenant.
MAINTENANCE_METRICS = {
    METRIC_COMPACTED_FILES: "Small files that were compacted",
    METRIC_COMPACTED_BYTES: "Bytes that compactions wrote",
    METRIC_EXPIRED_SNAPSHOTS: "Snapshots that expired",
    METRIC_ORPHAN_FILES: "Files without a table that were removed",
    METRIC_MAINTENANCE_FAILURES: "Tables that could not be maintained",
}
# Gauges of streaming jobs, by the field of their progress; rows count from a job's first start.
STREAM_TAGS = ("tenant", "job")
STREAM_METRICS = {
    "rows_in": ("matih_stream_rows_in", "Rows read"),
    "rows_out": ("matih_stream_rows_out", "Rows written"),
    "late_rows": ("matih_stream_late_rows", "Rows whose windows had fired"),
    "bad_rows": ("matih_stream_bad_rows", "Rows that could not be read"),
    "rejected_rows": ("matih_stream_rejected_rows", "Rows of the side table"),
    "checkpoint_s": ("matih_stream_checkpoint_seconds", "What the last checkpoint took"),
    "state_bytes": ("matih_stream_state_bytes", "Size of the last checkpoint"),
    "state_memory_bytes": ("matih_stream_state_memory_bytes", "Open windows in memory"),
    "state_disk_bytes": ("matih_stream_state_disk_bytes", "Open windows in files"),
    "slot_lag_bytes": ("matih_stream_slot_lag_bytes", "What a database keeps for a job"),
}
METRIC_STREAM_LAG = "matih_stream_watermark_lag_seconds"  # how far event time is behind the clock
METRIC_QUEUE_DEPTH = "matih_queue_depth"  # staged batches not yet written, a gauge

# --- redaction -------------------------------------------------------------------------------

_SECRET_WORDS = frozenset(
    {
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "dsn",
        "key",
        "keys",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pwd",
        "secret",
        "secrets",
        "token",
        "tokens",
    }
)
# Joined spellings that no word boundary separates: `apikey`, `accesstoken`, `dbpassword`.
_SECRET_ENDINGS = ("apikey", "passphrase", "password", "secret", "token")
# Names of ours that hold such a word and are not secret.
_HARMLESS = frozenset(
    {"credential_name", "key_column", "kv_key", "primary_key", "slice_key", "sort_key"}
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# `scheme://user:password@host` and `scheme://:password@host`; the user name stays readable.
_URL_PASSWORD = re.compile(
    r"(?P<before>\b[a-z][a-z0-9+.\-]*://[^\s/?#:@]*):[^\s/?#]*@", re.IGNORECASE
)
# `password=…` in connection strings and query strings, up to the next separator.
_PAIR_PASSWORD = re.compile(
    r"(?P<before>\b(?:password|passwd|pwd|secret|token|access_token|api_key|apikey)=)"
    r"(?:'[^']*'|\"[^\"]*\"|[^\s&;,]+)",
    re.IGNORECASE,
)


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether a value under this name must not be shown; words are split at `_`, `-` and case."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if "_".join(words) in _HARMLESS:
        return False
    return any(word in _SECRET_WORDS or word.endswith(_SECRET_ENDINGS) for word in words)


def redact_text(text: str) -> str:
    """The text with passwords in URLs and `password=` pairs replaced."""
    if "://" in text:
        text = _URL_PASSWORD.sub(rf"\g<before>:{REDACTED}@", text)
    if "=" in text:
        text = _PAIR_PASSWORD.sub(rf"\g<before>{REDACTED}", text)
    return text


def redact(value: object, depth: int = 0) -> object:
    """A value fit for a log line: secret-named entries and passwords in texts replaced."""
    if isinstance(value, str):
        return redact_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth >= MAX_REDACTION_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        return _redact_mapping(value, depth)
    if isinstance(value, (list, tuple, set, frozenset)):
        items = list(value)
        shown = [redact(item, depth + 1) for item in items[:MAX_REDACTION_ITEMS]]
        rest = len(items) - len(shown)
        return [*shown, f"... {rest} more"] if rest else shown
    return redact_text(str(value))


def _redact_mapping(value: Mapping[Any, object], depth: int) -> dict[str, object]:
    shown: dict[str, object] = {}
    for number, (key, item) in enumerate(value.items()):
        if number >= MAX_REDACTION_ITEMS:
            shown["..."] = f"{len(value) - number} more"
            break
        name = str(key)
        hidden = is_secret_name(name) and item is not None
        shown[name] = REDACTED if hidden else redact(item, depth + 1)
    return shown


def _redact_event(
    _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]
) -> EventDict:
    for name, value in event.items():
        if is_secret_name(name) and value is not None:
            event[name] = REDACTED
        else:
            event[name] = redact(value)
    return event


# --- logs ------------------------------------------------------------------------------------


def configure_logging(settings: Settings) -> None:
    """Send the structured log of this process to stderr as the settings say."""
    renderer: Processor = (
        structlog.processors.JSONRenderer(sort_keys=False, ensure_ascii=False)
        if settings.log_format == "json"
        # plain tracebacks: the pretty ones show local variables
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact_event,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelName(settings.log_level)
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        # not cached: a second configuration then reaches loggers that were made before it
        cache_logger_on_first_use=False,
    )


class Binding:
    """Facts bound to this thread's or task's log lines; leaving the `with` block unbinds them."""

    def __init__(self, facts: dict[str, str | int]) -> None:
        self._tokens = structlog.contextvars.bind_contextvars(**facts)

    def __enter__(self) -> Binding:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        structlog.contextvars.reset_contextvars(**self._tokens)


def bind(**facts: str | int | None) -> Binding:
    """Add facts (`tenant`, `run`, `slice`, `endpoint`, `unit`) to every later log line.

    Holds at once, until bound again or, used as `with bind(...)`, until the block ends. Contexts do
    not cross threads: bind inside the thread that logs. None values are left out.
    """
    return Binding({name: value for name, value in facts.items() if value is not None})
