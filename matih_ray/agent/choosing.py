"""Which streams a message means: names, patterns, numbers, ranges, all but some. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

_ALL = frozenset({"all", "everything", "all of them", "every", "all tables", "every table", "*",
                  "all streams", "the lot", "both", "take all", "all please"})  # fmt: skip
_EXCEPT = re.compile(
    r"\b(?:but not|all but|but|except for|except|without|excluding|minus|other than)\b",
    re.IGNORECASE,
)
_RANGE = re.compile(r"^#?(\d{1,6})\s*(?:-|\u2013|\.\.|to|through)\s*#?(\d{1,6})$")
_NOISE = re.compile(
    r"^(?:(?:please|just|only|take|select|load|sync|ingest|use|choose|pick|i want|i'd like|"
    r"want|let's take|give me|the|tables?|streams?|numbers?|nos?\.|and)\s+)+",
    re.IGNORECASE,
)
_TRAILER = re.compile(r"\s+(?:tables?|streams?|only|please|too|as well)$", re.IGNORECASE)


@dataclass(frozen=True)
class Selection:
    """Positions in the list that are meant, in order; `unknown` are words that mean none."""

    positions: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()


def select_streams(text: str, ids: Sequence[str]) -> Selection:
    """The streams that a message means.

    Args:
        text: The user's message, such as `1-5, orders` or `all but audit*`.
        ids: Unit ids in the order they were shown; numbers count from 1.
    """
    wanted, is_except, excepted = _split(text.strip().rstrip(".!"))
    chosen = _positions(wanted, ids) if wanted else Selection(tuple(range(len(ids))))
    if not is_except:
        return chosen
    left_out = _positions(excepted, ids)
    kept = tuple(p for p in chosen.positions if p not in set(left_out.positions))
    return Selection(kept, (*chosen.unknown, *left_out.unknown))


def _split(text: str) -> tuple[str, bool, str]:
    match = _EXCEPT.search(text)
    if match is None:
        return text, False, ""
    before = text[: match.start()].strip().rstrip(",")
    return before, True, text[match.end() :].strip()


def _positions(text: str, ids: Sequence[str]) -> Selection:
    positions: set[int] = set()
    unknown: list[str] = []
    for part in _parts(text):
        found = _meant(part, ids)
        if found:
            positions.update(found)
        else:
            unknown.append(part)
    return Selection(tuple(sorted(positions)), tuple(unknown))


def _parts(text: str) -> list[str]:
    parts: list[str] = []
    for part in re.split(r"\s*[,;\n]\s*|\s+and\s+|\s*&\s*", text):
        word = _TRAILER.sub("", _NOISE.sub("", part.strip())).strip("`'\" ")
        if not word:
            continue
        is_one = word.lower() in _ALL or _RANGE.match(word) or " " not in word
        parts.extend([word] if is_one else word.split())
    return parts


def _meant(word: str, ids: Sequence[str]) -> list[int]:
    lower = word.lower()
    if lower in _ALL:
        return list(range(len(ids)))
    if match := _RANGE.match(lower):
        first, last = sorted((int(match[1]), int(match[2])))
        return [p for p in range(first - 1, last) if 0 <= p < len(ids)] if last <= len(ids) else []
    if re.fullmatch(r"#?\d{1,6}", lower):
        position = int(lower.lstrip("#")) - 1
        return [position] if 0 <= position < len(ids) else []
    exact = [p for p, id_ in enumerate(ids) if id_.lower() == lower]
    if exact:
        return exact
    named = [p for p, id_ in enumerate(ids) if id_.lower().rpartition(".")[2] == lower]
    if named or not set("*?[") & set(lower):
        return named
    return [
        p
        for p, id_ in enumerate(ids)
        if fnmatchcase(id_.lower(), lower) or fnmatchcase(id_.lower().rpartition(".")[2], lower)
    ]
