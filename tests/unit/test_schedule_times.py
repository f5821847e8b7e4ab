"""When schedules are due: intervals without drift, cron through clock changes, steady jitter."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import pairwise

import pytest

from matih_ray.errors import ValidationError
from matih_ray.model.schedule import Timing
from matih_ray.planning.times import check_timing, due_after

ANCHOR = datetime(2026, 3, 28, 23, 30, tzinfo=timezone.utc)


def times(timing: Timing, count: int, name: str = "s", start: datetime = ANCHOR) -> list[datetime]:
    found, after = [], start
    for _ in range(count):
        after = due_after(timing, name, ANCHOR, after)
        found.append(after)
    return found


def test_intervals_are_counted_from_the_anchor_whatever_was_missed():
    timing = Timing(every_s=600)
    assert times(timing, 2) == [ANCHOR + timedelta(seconds=600 * n) for n in (1, 2)]
    late = ANCHOR + timedelta(days=3, seconds=7)
    assert due_after(timing, "s", ANCHOR, late) == ANCHOR + timedelta(days=3, seconds=600)
    before = ANCHOR - timedelta(seconds=601)
    assert due_after(timing, "s", ANCHOR, before) == ANCHOR + timedelta(seconds=600)


@pytest.mark.parametrize(
    ("cron", "zone", "hours"),
    [
        ("0 2 * * *", "UTC", [2.5, 26.5]),
        # clocks go forward on the 29th at 2:00, so that night's 2:30 comes at 3:00
        ("30 2 * * *", "Europe/Berlin", [1.5, 25.0]),
        ("0 12 * * *", "Pacific/Chatham", [22.75, 46.75]),
    ],
)
def test_cron_is_kept_in_its_own_zone(cron: str, zone: str, hours: list[float]):
    found = times(Timing(cron=cron, time_zone=zone), 2)
    assert [(at - ANCHOR) / timedelta(hours=1) for at in found] == hours
    assert {at.tzinfo for at in found} == {timezone.utc}


def test_jitter_is_a_steady_part_of_the_schedule():
    plain = times(Timing(every_s=600), 5)
    shifted = times(Timing(every_s=600, jitter_s=300), 5, "a")
    shifts = {later - at for at, later in zip(plain, shifted, strict=True)}
    assert len(shifts) == 1
    assert timedelta() <= shifts.pop() <= timedelta(seconds=300)
    firsts = {
        due_after(Timing(every_s=600, jitter_s=300), str(name), ANCHOR, ANCHOR)
        for name in range(100)
    }
    assert len(firsts) > 50


def test_no_time_is_left_out_or_repeated_with_jitter():
    timing = Timing(cron="*/5 * * * *", jitter_s=200)
    found = times(timing, 50, "a")
    assert {later - at for at, later in pairwise(found)} == {timedelta(minutes=5)}


@pytest.mark.parametrize(
    ("timing", "field"),
    [
        (Timing(), "timing"),
        (Timing(cron="* * * * *", every_s=60), "timing"),
        (Timing(cron="* * * *"), "timing.cron"),
        (Timing(cron="0 0 * * * *"), "timing.cron"),
        (Timing(cron="61 * * * *"), "timing.cron"),
        (Timing(cron="0 0 31 2 *"), "timing.cron"),
        (Timing(cron=""), "timing.cron"),
        (Timing(cron="* * * * *", time_zone="Mars/Olympus"), "timing.timeZone"),
        (Timing(every_s=60, time_zone="../etc/passwd"), "timing.timeZone"),
        (Timing(every_s=60, jitter_s=31), "timing.jitterS"),
    ],
)
def test_what_means_no_time_is_refused(timing: Timing, field: str):
    with pytest.raises(ValidationError) as refused:
        check_timing(timing)
    assert refused.value.context["field"] == field
