"""When a schedule is due. Pure."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from matih_ray.errors import ValidationError
from matih_ray.model.schedule import Timing

_CRON_FIELDS = 5


def check_timing(timing: Timing) -> None:
    """Check that a timing means times.

    Raises:
        ValidationError: Neither or both of cron and interval, or one that means no time.
    """
    if (timing.cron is None) is (timing.every_s is None):
        raise ValidationError("give either timing.cron or timing.everyS", field="timing")
    _zone(timing)
    if timing.cron is not None:
        _cron_after(timing, datetime(2024, 1, 1, tzinfo=timezone.utc))
    elif timing.jitter_s > (timing.every_s or 0) // 2:
        raise ValidationError(
            "timing.jitterS must be at most half of timing.everyS", field="timing.jitterS"
        )


def due_after(timing: Timing, name: str, anchor: datetime, after: datetime) -> datetime:
    """The first time after `after` at which a schedule of this timing is due.

    Args:
        timing: A checked timing.
        name: What tells schedules apart; it decides the jitter.
        anchor: When intervals began to be counted; the first one ends a whole one later.
        after: A moment with a zone.
    """
    jitter = timedelta(seconds=_jitter(timing, name))
    if timing.every_s is None:
        return _cron_after(timing, after - jitter) + jitter
    passed = (after - jitter - anchor) // timedelta(seconds=timing.every_s)
    return anchor + timedelta(seconds=timing.every_s * max(1, passed + 1)) + jitter


def _jitter(timing: Timing, name: str) -> int:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % (timing.jitter_s + 1)


def _cron_after(timing: Timing, after: datetime) -> datetime:
    cron = timing.cron or ""
    problem = None
    try:
        if len(cron.split()) != _CRON_FIELDS:
            problem = "it must have five fields: minute hour day month weekday"
        else:
            return next(CronSim(cron, after.astimezone(_zone(timing)))).astimezone(timezone.utc)
    except CronSimError as error:
        problem = str(error)
    except StopIteration:
        problem = "it never comes"
    raise ValidationError(f"timing.cron {cron[:80]!r}: {problem}", field="timing.cron")


def _zone(timing: Timing) -> ZoneInfo:
    try:
        return ZoneInfo(timing.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValidationError(
            f"no time zone {timing.time_zone!r}; write an IANA name such as Europe/Berlin",
            field="timing.timeZone",
        ) from None
