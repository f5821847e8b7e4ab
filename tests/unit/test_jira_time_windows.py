"""Times cut into windows of about as many issues each, whatever lies where."""

from __future__ import annotations

import bisect
import random
import threading
from itertools import pairwise

import pytest

from matih_ray.sources.jira import jql
from matih_ray.sources.jira.windows import MAX_PROBES, MIN_WINDOW, Window, cut

YEAR = 365 * 24 * 60 * jql.MINUTE
START = 7 * jql.SECOND


class Issues:
    """Times at which issues changed, and how often somebody counted."""

    def __init__(self, times: list[int]) -> None:
        self._times = sorted(times)
        self._lock = threading.Lock()
        self.probes = 0

    def count(self, after: int, until: int) -> int:
        with self._lock:
            self.probes += 1
        return bisect.bisect_right(self._times, until) - bisect.bisect_right(self._times, after)

    def whole(self) -> Window:
        return Window(START, START + YEAR, len(self._times))


@pytest.mark.parametrize("seed", range(20))
def test_windows_cover_the_time_and_are_small_where_minutes_allow_it(seed: int) -> None:
    chance = random.Random(seed)
    centres = [chance.randrange(YEAR) for _ in range(chance.randrange(1, 6))]
    spread = chance.choice([10 * jql.MINUTE, 600 * jql.MINUTE, YEAR // 3])
    times = [int(chance.gauss(chance.choice(centres), spread)) for _ in range(3000)]
    issues = Issues([START + min(max(time, 1), YEAR) for time in times])
    rows = chance.choice([1, 20, 500])
    windows = cut(issues.whole(), rows, issues.count)
    assert (windows[0].after, windows[-1].until) == (START, START + YEAR)
    assert [w.until for w in windows[:-1]] == [w.after for w in windows[1:]]
    assert sum(w.rows for w in windows) == 3000
    assert issues.probes <= MAX_PROBES
    if issues.probes < MAX_PROBES // 2:
        assert all(w.rows <= rows or w.until - w.after < MIN_WINDOW for w in windows)
        assert all(one.rows + other.rows > rows for one, other in pairwise(windows))


def test_few_issues_are_one_window_and_nobody_counts() -> None:
    issues = Issues([START + 1] * 5)
    assert cut(issues.whole(), 5, issues.count) == [issues.whole()]
    assert issues.probes == 0


def test_counting_ends_where_a_project_is_too_large_and_no_window_stays_whole() -> None:
    probes = []

    def count(after: int, until: int) -> int:
        probes.append((after, until))
        return (until - after) * 20_000_000 // YEAR

    windows = cut(Window(0, YEAR, 20_000_000), 5000, count)
    assert len(probes) <= MAX_PROBES
    assert max(window.rows for window in windows) <= 20_000
