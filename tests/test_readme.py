"""The README is true: its snippets run, one after the other, in one shell, as a reader would."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from matih_ray.testing.devstack.ports import free_port
from matih_ray.testing.devstack.runtime import stop_tree

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# The demo's data: the snippets show the way, the demo's own size shows nothing more.
DEMO_SCALE = "0.01"
# Two runtimes start one after the other: half a minute on a quiet machine.
TIMEOUT_S = 540
MAKES_OWN = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"}


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its language, its text and the line that it starts on."""

    language: str
    text: str
    line: int


def snippets() -> list[Snippet]:
    text = README.read_text()
    return [
        Snippet(match[1], match[2], text.count("\n", 0, match.start()) + 2)
        for match in FENCE.finditer(text)
    ]


def as_shell(snippet: Snippet) -> str:
    if snippet.language == "python":
        return f"python - <<'PYTHON'\n{snippet.text}PYTHON\n"
    return snippet.text


@pytest.fixture
def shop(postgres):
    """A database as the README supposes one."""
    postgres.create_database("readme")
    postgres.execute(
        "CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(10,2), placed timestamptz);"
        "INSERT INTO orders SELECT g, g * 1.1, now() FROM generate_series(1, 5000) AS g;"
        "ANALYZE orders",
        "readme",
    )
    return postgres


def test_every_snippet_is_of_a_language_that_is_run_here():
    assert {snippet.language for snippet in snippets()} == {"bash", "python"}


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_the_snippets_run_in_their_order(shop, tmp_path):
    marks = "".join(
        f"echo '--- line {snippet.line}'\n{as_shell(snippet)}" for snippet in snippets()
    )
    script = f"set -euo pipefail\ntrap 'kill $(jobs -p) 2> /dev/null || true; wait' EXIT\n{marks}"
    port = free_port()
    # whoever runs the tests by make must not reach the snippets' own make
    inherited = {name: value for name, value in os.environ.items() if name not in MAKES_OWN}
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=ROOT,
        env={
            **inherited,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "SCALE": DEMO_SCALE,
            "MATIH_HTTP_PORT": str(port),
            "MATIH_URL": f"http://127.0.0.1:{port}",
            "PGHOST": shop.host,
            "PGPORT": str(shop.port),
            "PGDATABASE": "readme",
            "PGUSER": shop.user,
            "PGPASSWORD": "not asked for",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        output, _ = shell.communicate(timeout=TIMEOUT_S)
    finally:
        stop_tree(shell.pid)
    print(output)
    assert shell.returncode == 0
    demo = next(line for line in output.splitlines() if line.startswith('{"ok"'))
    assert json.loads(demo)["ok"] is True
    assert "5000 orders" in output
