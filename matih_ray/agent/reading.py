"""What a message says about the fields of a template. Rules, in order of how certain they are:
JSON, URLs, `key: value` lines, options of command lines, labels in sentences, shapes, and at last
the bare answer to a question. What one rule took, the next does not see. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import SecretStr

from matih_ray.agent.templates import Field, Template
from matih_ray.agent.urls import URL, fields_of_url, scheme_of
from matih_ray.agent.words import (
    AS_USER,
    AT_HOST,
    FILLER,
    FLAGS,
    HOST_PORT,
    KEY_ID,
    LINE,
    LOGIN,
    NO_TLS,
    NOT_NAMES,
    NOTHING,
    PAIR,
    PASSWORD_LIKE,
    PORT,
    QUOTED,
    REGION,
    SECRET_KEY,
    TLS_MODES,
    TLS_SPELLINGS,
    USER_AT,
)


@dataclass(frozen=True)
class Reading:
    """Fields by name; secrets are kept apart and do not show. `wrong` are fields whose value was
    no possible one. `is_answer` says that a bare value was taken for the answer to a question."""

    fields: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    wrong: tuple[str, ...] = ()
    none: tuple[str, ...] = ()
    is_answer: bool = False

    @property
    def is_empty(self) -> bool:
        """Nothing was understood."""
        return not (self.fields or self.secrets or self.wrong or self.none)


def read_fields(
    text: str, template: Template, missing: Sequence[str] = (), asked: str | None = None
) -> Reading:
    """What a message says.

    Args:
        text: The user's message.
        template: What can be said.
        missing: Required fields that are not known yet, in order.
        asked: The field that the user was just asked for by name.
    """
    draft = _Draft(text, template)
    if not draft.take_row(missing) and not draft.take_json():
        draft.take_urls()
        draft.take_lines()
        draft.take_flags()
        draft.take_pair()
        draft.take_labels()
        draft.take_shapes()
    is_answer = False
    if not draft.found:
        is_answer = draft.take_answer(missing, asked)
    return _checked(draft.found, template, is_answer=is_answer)


def problem_of(field_: Field, value: str) -> bool:
    """Whether a value is impossible for a field."""
    if field_.kind == "port":
        return not (value.isdecimal() and 1 <= int(value) <= 65_535)
    if field_.kind == "host":
        return not re.fullmatch(r"[\w.:%/-]{1,255}", value)
    if field_.kind == "region":
        return not re.fullmatch(r"[a-z0-9-]{2,40}", value)
    if field_.kind == "tls":
        return value not in TLS_MODES
    return not value or len(value) > 4096


class _Draft:
    """A message while rules take parts of it."""

    def __init__(self, text: str, template: Template) -> None:
        self.template = template
        # `Server=…;Port=…`: a semicolon before another name ends a value
        self.rest = re.sub(r";(?=\s*[A-Za-z][\w ]{0,30}=)", " ; ", text)
        self.found: dict[str, str] = {}

    def put(self, name: str, value: str) -> bool:
        """Note a field once; the first rule that finds it is the most certain."""
        if self.template.field(name) is None or name in self.found or not value:
            return False
        self.found[name] = value
        return True

    def cut(self, start: int, end: int) -> None:
        self.rest = self.rest[:start] + " " * (end - start) + self.rest[end:]

    def take_json(self) -> bool:
        start, end = self.rest.find("{"), self.rest.rfind("}")
        if start < 0 or end < start:
            return False
        try:
            document = json.loads(self.rest[start : end + 1])
        except ValueError:
            return False
        for name, value in _leaves(document):
            known = self.template.field(_names(self.template).get(_plain(name), ""))
            if known is not None and (known.kind == "json" or value[:1] not in ("{", "[")):
                self.put(known.name, value)
        if not self.found:
            return False
        self.cut(start, end + 1)
        return True

    def take_urls(self) -> None:
        for match in URL.finditer(self.rest):
            web = scheme_of(match[0]) in ("http", "https")
            if web and not self._is_home(match[0]):
                if self.template.field("host"):
                    continue
                name = next((n for n in ("url", "base_url") if self.template.field(n)), "endpoint")
                self.put(name, match[0].rstrip(".,;"))
            else:
                for name, value in fields_of_url(match[0], self.template).items():
                    self.put(name, value)
            self.cut(*match.span())

    def _is_home(self, url: str) -> bool:
        """Whether a web address of this type names fields."""
        is_snowflake = self.template.type == "SNOWFLAKE" and ".snowflakecomputing.com" in url
        return is_snowflake or self.template.type == "S3"

    def take_lines(self) -> None:
        start = 0
        for line in self.rest.split("\n"):
            match = LINE.match(line)
            is_option = match is not None and "--" in match[1]
            known = _names(self.template).get(_plain(match[1])) if match else None
            if match and known and not is_option and not _pairs_in(match[2], self.template):
                self.put(known, _unquoted(match[2]))
                self.cut(start, start + len(line))
            start += len(line) + 1

    def take_flags(self) -> None:
        if not re.search(r"(?<!\S)(?:psql|mysql|mariadb|pg_dump|mysqldump)\s+-", self.rest):
            return
        is_mysql = "mysql" in self.rest or "mariadb" in self.rest
        port, password = ("P", "p") if is_mysql else ("p", "W")
        for flag, name in {**FLAGS, port: "port", password: "password"}.items():
            for match in re.finditer(rf"(?<!\S)-{flag}\s*({QUOTED}|[^\s-]\S*)", self.rest):
                value = _unquoted(match[1])
                self.put(name, value if name == "password" else value.rstrip(",;"))
                self.cut(*match.span())

    def take_labels(self) -> None:
        for secrets_first in (True, False):
            for match in list(_labels(self.template).finditer(self.rest)):
                name = _names(self.template)[_plain(match["label"])]
                known = self.template.field(name)
                if known is None or known.is_secret is not secrets_first:
                    continue
                if self.rest[match.start("value") : match.end("value")].strip() == "":
                    continue
                value = _value(match["value"], match["by"], is_secret=known.is_secret)
                if not value or (not match["by"].strip() and _is_filler(value, known, self)):
                    continue
                if self.put(name, value):
                    self.cut(match.start(), match.start("value") + len(match["value"]))

    def take_pair(self) -> None:
        match = PAIR.search(self.rest)
        if match and self.template.field("username"):
            self.put("username", match[1])
            self.put("password", match[2])
            self.cut(*match.span())

    def take_shapes(self) -> None:
        if self.template.type in ("S3", "DYNAMODB"):
            for name, shape in (("access_key_id", KEY_ID), ("secret_access_key", SECRET_KEY)):
                self._take(name, shape)
            self._take("region", REGION)
        if self.template.field("ssl_mode") and (match := NO_TLS.search(self.rest)):
            self.put("ssl_mode", "disable")
            self.cut(*match.span())
        if self.template.field("username"):
            self._take_logins()
        if self.template.field("host"):
            self._take_places()
        self._take_reversed()

    def take_answer(self, missing: Sequence[str], asked: str | None) -> bool:
        """A bare value: the answer to a question, or the one thing that is missing."""
        text = self.rest.strip()
        if not text:
            return False
        name = asked or (missing[0] if len(missing) == 1 else None)
        field_ = self.template.field(name) if name else None
        if field_ is None:
            return self._shaped_answer(text, missing)
        if not field_.is_secret and (len(text.split()) > 1 and not _is_quoted(text)):
            return False
        if not field_.is_secret and self._may_be_secret(text, missing):
            return False
        self.found[field_.name] = text if field_.is_secret else _unquoted(text)
        return True

    def _may_be_secret(self, text: str, missing: Sequence[str]) -> bool:
        """Whether a bare answer to another question looks like the secret that is missing too."""
        awaited = [self.template.field(name) for name in missing]
        return any(f and f.is_secret for f in awaited) and bool(PASSWORD_LIKE.search(text))

    def _shaped_answer(self, text: str, missing: Sequence[str]) -> bool:
        if "port" in missing and text.isdecimal():
            self.found["port"] = text
            return True
        return False

    def take_row(self, missing: Sequence[str]) -> bool:
        """As many values as fields are missing, in their order."""
        text = self.rest.strip()
        values = [part.strip() for part in re.split(r"[,;\n]+\s*", text) if part.strip()]
        if len(values) == 1 and "port" in missing:
            # without a number among them, the words of a sentence would do as well
            values = text.split()
        if len(values) != len(missing) or len(values) < 2:
            return False
        names = _names(self.template)
        for name, value in zip(missing, values, strict=True):
            known = self.template.field(name)
            first = re.split(r"[\s:=]", value)[0]
            if known is None or problem_of(known, _unquoted(value)) or _plain(first) in names:
                return False
            if " " in value and not known.is_secret:
                return False
        self.found.update({n: _unquoted(v) for n, v in zip(missing, values, strict=True)})
        return True

    def _take(self, name: str, shape: re.Pattern[str]) -> None:
        match = shape.search(self.rest)
        if match and self.put(name, match[0]):
            self.cut(*match.span())

    def _take_logins(self) -> None:
        if match := LOGIN.search(self.rest):
            names = ("username", "password", "host", "port", "database")
            for name, value in zip(names, match.groups(), strict=True):
                self.put(name, value or "")
            self.cut(*match.span())
        if match := USER_AT.search(self.rest):
            for name, value in zip(
                ("username", "host", "port", "database"), match.groups(), strict=True
            ):
                self.put(name, value or "")
            self.cut(*match.span())
        if "username" not in self.found and (match := AS_USER.search(self.rest)):
            value = match[1].rstrip(".,")
            if value.lower() not in NOT_NAMES and self.put("username", value):
                self.cut(*match.span())

    def _take_places(self) -> None:
        for shape in (HOST_PORT, AT_HOST):
            match = shape.search(self.rest)
            if match and self.put("host", match[1]):
                self.put("port", match[2] or "")
                if shape is HOST_PORT:
                    self.put("database", match[3] or "")
                self.cut(*match.span())
        if "port" not in self.found and (match := PORT.search(self.rest)):
            self.put("port", match[1] or match[2])
            self.cut(*match.span())

    def _take_reversed(self) -> None:
        """`the sales database`, `our lake bucket`."""
        for name in ("database", "schema", "warehouse", "bucket", "role"):
            if name in self.found or self.template.field(name) is None:
                continue
            words = "database|db" if name == "database" else name
            match = re.search(rf"([\w.-]+)\s+(?:{words})\b", self.rest, re.IGNORECASE)
            if match and match[1].lower() not in NOT_NAMES and self.put(name, match[1]):
                self.cut(*match.span())


def _checked(found: Mapping[str, str], template: Template, *, is_answer: bool) -> Reading:
    fields: dict[str, str] = {}
    secrets: dict[str, SecretStr] = {}
    wrong: list[str] = []
    none: list[str] = []
    for name, raw in found.items():
        known = template.field(name)
        assert known is not None  # noqa: S101 only such are put
        value = TLS_SPELLINGS.get(raw.lower(), raw.lower()) if known.kind == "tls" else raw
        if known.kind == "port" and raw.lower() in ("default", "standard") and known.default:
            value = known.default
        if known.is_secret and raw.lower() in NOTHING:
            none.append(name)
        elif problem_of(known, value):
            wrong.append(name)
        elif known.is_secret:
            secrets[name] = SecretStr(value)
        else:
            fields[name] = value
    return Reading(fields, secrets, tuple(wrong), tuple(none), is_answer)


def _leaves(document: object) -> Iterator[tuple[str, str]]:
    if isinstance(document, dict):
        for name, value in document.items():
            if isinstance(value, (dict, list)):
                yield str(name), json.dumps(value)
                yield from _leaves(value)
            elif value is not None:
                yield str(name), str(value).lower() if isinstance(value, bool) else str(value)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


@lru_cache(maxsize=64)
def _names(template: Template) -> dict[str, str]:
    """Field names by all their spellings, without separators."""
    return {
        _plain(spelling): known.name
        for known in reversed(template.fields)
        for spelling in (known.name, known.label, known.wire, *known.aliases)
    }


@lru_cache(maxsize=64)
def _labels(template: Template) -> re.Pattern[str]:
    spellings = {
        re.sub(r"[ _]", "[ _-]?", spelling.lower())
        for known in template.fields
        for spelling in (known.name, known.label, known.wire, *known.aliases)
    }
    alternatives = "|".join(sorted(spellings, key=len, reverse=True))
    return re.compile(
        rf"(?:(?<![\w.@/-])|(?<=\s--))(?P<label>{alternatives})(?![\w-])(?:[\"'](?!s\s))?"
        r"(?P<by>'s\s+|\s*(?:=>|->|:=|=|:)\s*|\s+(?:is|are|named|called|to|be)\s+(?:now\s+|to\s+|called\s+|named\s+)?|\s+)"
        rf"(?P<value>{QUOTED}|[^\s\"'`]\S*)",
        re.IGNORECASE,
    )


def _pairs_in(value: str, template: Template) -> bool:
    """Whether the rest of a line holds further fields; a quoted value is one value."""
    if _is_quoted(value.rstrip(",")):
        return False
    return any(
        re.search(r"[=:]", match["by"]) or re.search(r"[,;]\s*$", value[: match.start()])
        for match in _labels(template).finditer(value)
    ) or bool(re.search(r"[,;]\s+\w", value) and _labels(template).search(value))


def _value(raw: str, by: str, *, is_secret: bool) -> str:
    if _is_quoted(raw):
        return raw[1:-1]
    value = raw.rstrip(",;") if raw[-1:] in ",;" else raw
    if not is_secret:
        return value.rstrip(".!?,;)")
    # a sentence's full stop; one that is given with `=` or `:` may be part of the secret
    return value if re.search(r"[=:]", by) else value.removesuffix(".")


def _is_filler(value: str, known: Field, draft: _Draft) -> bool:
    word = value.strip(",.;:?!").lower()
    if word in FILLER or (_plain(word) in _names(draft.template) and word != "postgres"):
        return True
    return known.kind == "port" and not word.isdecimal() and word not in ("default", "standard")


def _is_quoted(text: str) -> bool:
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`"


def _unquoted(text: str) -> str:
    text = text.strip()
    text = text[:-1].rstrip() if _is_quoted(text[:-1].rstrip()) and text[-1] in ",;" else text
    return text[1:-1] if _is_quoted(text) else text
