"""Words and shapes that `reading` knows."""

from __future__ import annotations

import re

# A message is a few fields or a pasted file of them; more is refused before it gets here.
MAX_MESSAGE_CHARS = 16_000

QUOTED = r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`[^`]*`"
LINE = re.compile(
    r"^\s*(?:[-*]\s+)?(?:export\s+|set\s+)?[\"'`]?([A-Za-z][\w .-]*?)[\"'`]?"
    r"\s*(?:=>|->|:=|:|=)\s*(.+?)\s*$"
)
HOSTNAME = (
    r"(?:(?:[a-zA-Z0-9](?:[\w-]*[a-zA-Z0-9])?\.)+[a-zA-Z][a-zA-Z0-9-]+"
    r"|localhost|(?:\d{1,3}\.){3}\d{1,3})"
)
HOST_PORT = re.compile(rf"(?<![\w@./-])({HOSTNAME})(?::(\d{{1,5}}))?(?:/(\w+))?(?![\w@-]|\.\w)")
AT_HOST = re.compile(r"\b(?:at|on|host)\s+([a-zA-Z0-9][\w-]*)(?::(\d{2,5}))(?!\w)")
LOGIN = re.compile(
    r"(?<![\w/:])([\w.-]+):([^\s@]+|\S+?)@([\w.-]+)(?::(\d{1,5}))?(?:/([\w-]+))?(?!\S)"
)
USER_AT = re.compile(rf"(?<![\w:/.])([\w-]+)@({HOSTNAME})(?::(\d{{1,5}}))?(?:/(\w+))?(?![\w@])")
AS_USER = re.compile(
    r"\b(?:log(?:ging)? ?in as|connect(?:ing)? as|as user|sign in as|as)\s+([\w.-]+)", re.IGNORECASE
)
PORT = re.compile(
    r"(?:\bon|\bport|\bat)\s+:?(\d{2,5})(?![\w.])|(?<!\S):(\d{2,5})(?!\S)", re.IGNORECASE
)
KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,16}\b")
SECRET_KEY = re.compile(r"(?<![\w/+=])[A-Za-z0-9/+]{40}(?![\w/+=])")
REGION = re.compile(
    r"\b(?:us|eu|ap|sa|ca|me|af|il|mx|cn|us-gov)-(?:north|south|east|west|central|northeast|southeast|northwest|southwest)-\d\b"
)
NO_TLS = re.compile(
    r"\b(?:without|no|disable)\s+(?:ssl|tls)\b|\b(?:ssl|tls)(?:\s+is)?\s+(?:off|disabled)\b",
    re.IGNORECASE,
)
FLAGS = {"h": "host", "U": "username", "u": "username", "d": "database", "D": "database"}
TLS_SPELLINGS = {
    "off": "disable", "no": "disable", "false": "disable", "disabled": "disable",
    "on": "require", "yes": "require", "true": "require", "required": "require",
    "enabled": "require", "verify": "verify-full",
}  # fmt: skip
TLS_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
NOTHING = frozenset({"none", "no", "skip", "-", "empty", "n/a", "there is none", "no password"})
# Words that follow a label without being its value.
FILLER = frozenset({
    "and", "or", "is", "are", "the", "a", "an", "for", "to", "of", "in", "on", "at", "with",
    "as", "it", "its", "my", "our", "your", "that", "this", "please", "field", "fields", "name",
    "wrong", "right", "not", "be", "will", "would", "should", "called", "named", "there",
    "here", "need", "needed", "uses", "using", "running", "by", "from", "via", "i", "we", "you",
    "but", "lives", "sits", "runs", "located", "do", "does", "did", "can", "could",
    "have", "has", "means",
})  # fmt: skip
# Words before `database` and the like that are no name of one.
NOT_NAMES = FILLER | frozenset({
    "postgres", "postgresql", "mysql", "mariadb", "snowflake", "s3", "aws", "amazon", "same",
    "new", "another", "different", "default", "sql", "production-grade", "which", "what",
    "correct", "pg", "main", "cloud", "remote", "local",
})  # fmt: skip
# `user/password: bob/…`, `creds: bob / …`
PAIR = re.compile(
    r"\b(?:user(?:name)?\s*(?:/|and|&)\s*pass(?:word|wd)?|creds|credentials|login)"
    r"\s*(?:are|is)?\s*[:=]?\s*([\w.@-]+)\s*/\s*([^\s/]\S*)",
    re.IGNORECASE,
)
# A bare word that is more likely a password than a name: symbols, or all kinds of characters.
PASSWORD_LIKE = re.compile(
    r"[!#$%^&*()+=?<>{}|~\\]|^(?=\S*[a-z])(?=\S*[A-Z])(?=\S*\d)[A-Za-z\d_-]{8,}$"
)
