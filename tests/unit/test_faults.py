"""Faults that tests arm: as many processes pass as were let, and then one obeys."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matih_ray.execution.steps import Step
from matih_ray.settings import Settings
from matih_ray.testing.faults import Faults, obey

PASSES = 40


def test_those_let_pass_do_and_one_obeys_however_many_come_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _pid, number: killed.append(number))
    settings = Settings(home=tmp_path)
    faults = Faults(tmp_path)
    faults.arm(Step.READING, after=PASSES)

    def come(number: int) -> None:
        obey(settings, Step.READING, "run", str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come, range(PASSES)))
        assert faults.is_armed(Step.READING)
        assert killed == []
        list(pool.map(come, range(PASSES, PASSES + 8)))
    assert killed == [signal.SIGKILL]
    assert not faults.is_armed(Step.READING)
    assert len(faults.journal("run")) == PASSES + 8
