"""What must not be kept of a message: secrets by label, by shape, and those given before."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matih_ray.telemetry import REDACTED

# Shorter values would black out whole sentences; they are only matched as whole words.
MIN_ECHO_CHARS = 6

_LABELS = (
    r"aws[ _]secret[ _]access[ _]key|secret[ _]?access[ _]?key|access[ _]?key[ _]?id|secret[ _]key|"
    r"access[ _]key|api[ _]?(?:key|token)|private[ _]?key(?:[ _]?passphrase)?|"
    r"client[ _]?(?:secret|key)|service[ _]?account[ _]?key|refresh[ _]?token|"
    r"session[ _]?token|connection[ _]?string|"
    r"access[ _]?token|account[ _]?key|sas[ _]?token|bearer|pass[ ]?word|passphrase|"
    r"passcode|passwort|passwd|pass|pwd|pw|secret|token|(?:pg|db|mysql|postgres|database|snowflake)_?(?:password|pwd|pass)"
)
_QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`"
_LABELLED = re.compile(
    rf"(?P<before>(?<![A-Za-z0-9])(?:{_LABELS})(?:[\"'](?!s\s))?"
    r"(?:'s\s+|\s*(?:=>|->|:=|=|:)\s*|\s+(?:is|was|to|are|as)\s+(?:now\s+)?|\s+))"
    rf"(?P<value>{_QUOTED}|[^\s\"'`][^\s]*)",
    re.IGNORECASE,
)
_URL = re.compile(
    r"(?P<before>\b[a-z][a-z0-9+.\-]*://[^\s:/@]*):(?P<secret>\S+)@(?=[^\s@]*)", re.IGNORECASE
)
_BARE_LOGIN = re.compile(r"(?P<before>(?<![\w/])[\w.-]+):(?!//)(?P<secret>[^\s@]+)@(?=[\w.-]+)")
_FLAG = re.compile(r"(?P<before>(?<!\S)(?:--password[= ]|-p(?=[^\s\d]))['\"]?)[^\s'\"]+")
_SHAPES = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,20}\b"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"
    r"|\b(?:gh[pousr]_|github_pat_|xox[abprs]-|sk-|sk_live_|glpat-|hf_)[\w-]{10,}"
    r"|(?<![\w/+=])(?=[\w/+]*[A-Z])(?=[\w/+]*[a-z])(?=[\w/+]*\d)[A-Za-z0-9/+]{40}(?![\w/+=])",
    re.DOTALL,
)
# Words that follow a label in ordinary sentences.
_WORDS = frozenset(
    {
        "and",
        "or",
        "is",
        "are",
        "the",
        "a",
        "an",
        "for",
        "to",
        "of",
        "in",
        "on",
        "at",
        "with",
        "but",
        "not",
        "no",
        "none",
        "it",
        "will",
        "would",
        "wrong",
        "right",
        "correct",
        "expired",
        "empty",
        "missing",
        "again",
        "now",
        "please",
        "later",
        "that",
        "this",
        "was",
        "has",
        "must",
        "should",
        "can",
        "id",
        "key",
        "username",
        "user",
        "host",
        "port",
        "database",
        "field",
        "access",
    }
)


@dataclass(frozen=True)
class Echo:
    """A secret that was given, known only by a keyed digest, its length, and the last byte of the
    sum of its characters, which saves most digests while a text is searched."""

    digest: bytes
    chars: int
    total: int

    @classmethod
    def of(cls, secret: str, key: bytes) -> Echo:
        """What is kept of a secret to recognise it; useless without the key."""
        return cls(_digest(secret, key), len(secret), sum(map(ord, secret)) & 0xFF)

    def is_of(self, text: str, key: bytes) -> bool:
        """Whether a text is the secret."""
        return len(text) == self.chars and _digest(text, key) == self.digest


def redact_message(
    text: str, secrets: Iterable[str] = (), echoes: Sequence[Echo] = (), key: bytes = b""
) -> str:
    """The message fit to be stored.

    Args:
        text: What the user wrote.
        secrets: Values that were recognised in it as secrets.
        echoes: Secrets of earlier messages.
        key: What their digests were made with.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    text = redact_echoes(text, echoes, key)
    text = _SHAPES.sub(REDACTED, text)
    text = _URL.sub(rf"\g<before>:{REDACTED}@", text)
    text = _BARE_LOGIN.sub(rf"\g<before>:{REDACTED}@", text)
    text = _FLAG.sub(rf"\g<before>{REDACTED}", text)
    return _LABELLED.sub(_redacted_pair, text)


def secrets_in(text: str) -> tuple[str, ...]:
    """Values that look like secrets by their label or shape, whoever asked for them."""
    found = [match["value"].strip("\"'`") for match in _LABELLED.finditer(text) if _is_value(match)]
    found += [match[0] for match in _SHAPES.finditer(text)]
    found += [match["secret"] for match in _URL.finditer(text)]
    found += [match["secret"] for match in _BARE_LOGIN.finditer(text)]
    return tuple(value for value in dict.fromkeys(found) if value and REDACTED not in value)


def redact_echoes(text: str, echoes: Sequence[Echo], key: bytes) -> str:
    """The text without secrets of earlier messages."""
    for echo in echoes:
        text = _without_echo(text, echo, key)
    return text


def _redacted_pair(match: re.Match[str]) -> str:
    if REDACTED in match["value"] or not _is_value(match):
        return match[0]
    return match["before"] + REDACTED


def _is_value(match: re.Match[str]) -> bool:
    is_bare = not re.search(r"[=:>]\s*$", match["before"])
    return not (is_bare and match["value"].strip(",.;:?!").lower() in _WORDS)


def _without_echo(text: str, echo: Echo, key: bytes) -> str:
    if not 0 < echo.chars <= len(text):
        return text
    if echo.chars < MIN_ECHO_CHARS:
        return re.sub(r"[^\s,;\"']+", lambda m: REDACTED if echo.is_of(m[0], key) else m[0], text)
    for start in _starts(text, echo, key):
        if echo.is_of(text[start : start + echo.chars], key):  # not one that overlaps the last
            text = text[:start] + REDACTED + text[start + echo.chars :]
    return text


def _starts(text: str, echo: Echo, key: bytes) -> list[int]:
    """Where a text holds the secret, last first. The sum of a window is carried along."""
    codes = list(map(ord, text))
    size = echo.chars
    total = sum(codes[:size])
    found: list[int] = []
    for start in range(len(codes) - size + 1):
        if start:
            total += codes[start + size - 1] - codes[start - 1]
        if total & 0xFF == echo.total and echo.is_of(text[start : start + size], key):
            found.append(start)
    return found[::-1]


def _digest(text: str, key: bytes) -> bytes:
    return hmac.digest(key, text.encode("utf-8", "surrogatepass"), "sha256")
