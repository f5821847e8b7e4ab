"""A demo that is told to stay, stays; stopping it later leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240


def demo(*arguments: str, **environment: str) -> str:
    """Run the demo without a terminal; returns its standard output."""
    return subprocess.run(
        [sys.executable, "-m", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    ).stdout


def processes_of(directory: str) -> list[str]:
    """Command lines of living processes that name a directory."""
    found = [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    return [line for line in found if directory in line]


@pytest.mark.timeout(2 * TIMEOUT_S)
def test_a_kept_demo_answers_until_it_is_stopped_and_leaves_nothing():
    output = demo(SCALE="0.002", KEEP="1")
    result = json.loads(output.splitlines()[-1])
    facts = dict(re.findall(r"^(control API|token|stop it all)\s+(.*)$", output, re.MULTILINE))
    directory = facts["stop it all"].split()[-1]
    try:
        runs = httpx.get(
            f"{facts['control API']}/runs",
            headers={"Authorization": f"Bearer {facts['token']}"},
            trust_env=False,
        ).json()["items"]
        living = processes_of(directory)
    finally:
        demo("stop", directory)
    assert result["ok"] is True
    assert set(result["tables"]) == {"lineitem", "orders"}
    assert all(table["checksum_match"] for table in result["tables"].values())
    assert [run["state"] for run in runs] == ["COMPLETED"] * 4
    assert living
    assert processes_of(directory) == []
    assert not Path(directory).exists()
