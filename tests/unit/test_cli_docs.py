"""The examples of docs/cli.md are commands, and what they say is printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from matih_ray.cli.app import app
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.fakes import InlineLauncher
from tests.api.lab import Lab, open_lab
from tests.api.server import serving

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 300


def steps() -> list[tuple[str, str]]:
    """Commands and what each prints."""
    found = []
    for block in BLOCK.findall(PAGE.read_text()):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, printed = part.partition("\n")
            found.append((command, printed))
    return found


def commands() -> Iterator[str]:
    def walk(command, path: str) -> Iterator[str]:
        children = getattr(command, "commands", {})
        if not children:
            yield path
        for name, child in children.items():
            yield from walk(child, f"{path} {name}")

    return walk(typer.main.get_command(app), "matih")


def test_every_command_has_its_heading_and_nothing_else_has():
    headings = re.findall(r"^## (matih .*)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(commands())


def test_every_exit_code_is_documented():
    from matih_ray.cli import failures

    codes = {value for name, value in vars(failures).items() if name.startswith("EXIT_")}
    assert set(map(int, re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE))) == {0, *codes}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from open_lab(tmp_path / "home", InlineLauncher())


def test_every_example_prints_what_it_says(lab: Lab, postgres: PostgresServer, tmp_path: Path):
    database = "docs_cli"
    postgres.create_database(database)
    postgres.execute(
        """
        CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(10,2), placed timestamptz);
        INSERT INTO orders SELECT g, g * 1.5, now() FROM generate_series(1, 5000) g;
        CREATE TABLE customers (id int PRIMARY KEY, name text);
        INSERT INTO customers SELECT g, 'c' || g FROM generate_series(1, 10) g;
        ANALYZE;
        """,
        database,
    )
    # one shell for all, as for a reader; marks tell what each command has printed
    script = "set -e\nexec 2>&1\n" + "".join(
        f"echo '>>> {number}'\n{command.replace('=docs ', f'={database} ')}\n"
        for number, (command, _) in enumerate(steps())
    )
    with serving(lab.app) as url:
        done = subprocess.run(
            ["bash", "-c", script],
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "MATIH_HOME": str(lab.ports.settings.home),
                "MATIH_URL": url,
                "PGHOST": postgres.host,
                "PGPORT": str(postgres.port),
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    parts = re.split(r"^>>> \d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert done.returncode == 0, done.stdout
    for (command, documented), printed in zip(steps(), parts, strict=True):
        pattern = ".*".join(map(re.escape, documented.strip().split("…")))
        assert re.fullmatch(pattern, printed.strip(), re.DOTALL), (command, printed)
