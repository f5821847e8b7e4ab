"""Schedules in plain words: `hourly`, `every night at 2`, `weekdays at 6:30`, cron. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from matih_ray.errors import ValidationError
from matih_ray.model.schedule import MAX_INTERVAL_S, MIN_INTERVAL_S, Timing
from matih_ray.planning.times import check_timing

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_UNITS = {"second": 1, "sec": 1, "minute": 60, "min": 60, "hour": 3600, "hr": 3600, "day": 86_400,
          "week": 604_800}  # fmt: skip
_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6,
            "eight": 8, "ten": 10, "twelve": 12, "fifteen": 15, "twenty": 20, "thirty": 30,
            "half an": 0, "other": 2, "second": 2}  # fmt: skip
_ONCE = re.compile(
    r"\b(?:once(?!\s+(?:an?|per|each|every|in)\b)|one time|manual(?:ly)?|no schedule|"
    r"not scheduled|unscheduled|on demand|just now|only now|never again|"
    r"don'?t schedule|run now only)\b"
)
_CRON = re.compile(
    r"(?<![\w*])((?:[\d*][\d*,/-]*\s+){2}(?:[\dL*?][\d*,/L?-]*\s+)(?:[\w*][\w*,/-]*\s+)[\w*?][\w*,/#-]*)(?![\w*])"
)
_CLOCK = re.compile(
    r"\b(?:at|@|around|by)?\s*(\d{1,2})(?:[:.h](\d{2}))?\s*(am|pm|a\.m\.|p\.m\.|o'?clock|h|uhr)?(?!\w)"
)
_EVERY = re.compile(
    r"\bevery\s+(?:(\d+|half an|[a-z]+)\s+)?(second|sec|minute|min|hour|hr|day|week)s?\b"
)
_ZONE = re.compile(r"\b(UTC|GMT|[A-Z][a-z]+/[A-Z][A-Za-z_]+)\b")


@dataclass(frozen=True)
class Understood:
    """`timing` None means once, now."""

    timing: Timing | None


def read_timing(text: str) -> Understood | None:
    """When a message wants runs to start; None if it does not say.

    Raises:
        ValidationError: It says something that means no time.
    """
    zone = _ZONE.search(text)
    lower = text.lower()
    if _ONCE.search(lower):
        return Understood(None)
    cron = _cron(text) or _words(lower)
    if cron is not None:
        timing = Timing(cron=cron, time_zone=zone[1] if zone else "UTC")
    else:
        seconds = _interval(lower)
        if seconds is None:
            return None
        if not MIN_INTERVAL_S <= seconds <= MAX_INTERVAL_S:
            raise ValidationError("the time between two runs is too short", field="timing")
        timing = Timing(every_s=seconds)
    check_timing(timing)
    return Understood(timing)


def _cron(text: str) -> str | None:
    match = _CRON.search(text)
    return " ".join(match[1].split()) if match else None


def _interval(text: str) -> int | None:
    if re.search(r"\bhalf[- ]hourly\b|\bevery half an hour\b", text):
        return 1800
    match = _EVERY.search(text)
    if match is None:
        return None
    count = match[1] or "1"
    number = int(count) if count.isdecimal() else _NUMBERS.get(count)
    return None if number is None else number * _UNITS[match[2]]


def _words(text: str) -> str | None:
    """Hours and days of the calendar, as cron."""
    days = _days(text)
    hour, minute = _clock(text)
    if days is not None:
        return f"{minute} {hour} * * {days}"
    if re.search(
        r"\bmonthly\b|\bevery month\b|\bfirst (?:day )?of (?:the|each|every) month\b", text
    ):
        return f"{minute} {hour} 1 * *"
    if re.search(
        r"(?<!half-)(?<!half )\bhourly\b|\bevery hour\b|\bonce an hour\b|\beach hour\b", text
    ):
        return "0 * * * *"
    if re.search(r"\bweekly\b|\bevery week\b|\bonce a week\b", text):
        return f"{minute} {hour} * * 1"
    daily = (
        r"\b(?:daily|nightly|once a day|a day|"
        r"(?:every|each) (?:single )?(?:day|night|morning|evening|midnight|noon))\b"
    )
    if re.search(daily, text) or re.fullmatch(r"\s*(?:at\s+)?(?:midnight|noon)\s*", text):
        return f"{minute} {hour} * * *"
    return None


def _days(text: str) -> str | None:
    if re.search(r"\b(?:weekdays?|working days?|business days?|workdays?)\b", text):
        return "1-5"
    if re.search(r"\bweekends?\b", text):
        return "0,6"
    named = [n for n, day in enumerate(_DAYS) if re.search(rf"\b{day}s?\b|\b{day[:3]}\b", text)]
    return ",".join(map(str, named)) or None


def _clock(text: str) -> tuple[int, int]:
    """Hour and minute; at two in the night if nothing is said, when sources are least busy."""
    if "noon" in text and "afternoon" not in text:
        return 12, 0
    if "midnight" in text:
        return 0, 0
    # the number of an interval is no time of the day
    match = next((m for m in _CLOCK.finditer(text) if int(m[1]) < 24), None)
    if match is None:
        if "morning" in text:
            return 6, 0
        return (18, 0) if "evening" in text else (2, 0)
    hour, minute = int(match[1]), int(match[2] or 0)
    is_late = ("evening" in text and 4 < hour < 12) or "afternoon" in text
    is_pm = (match[3] or "").startswith("p") or is_late
    if is_pm and hour < 12:
        hour += 12
    if (match[3] or "").startswith("a") and hour == 12:
        hour = 0
    return hour, min(minute, 59)
