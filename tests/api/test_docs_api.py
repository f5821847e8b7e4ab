"""The examples of docs/api.md are requests, and what they say comes back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.fakes import InlineLauncher
from tests.api.lab import Lab, open_lab
from tests.api.test_authorization import ROUTES

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
EXAMPLE = re.compile(
    r"^```http\n(?P<request>.*?)\n\n(?P<status>\d+)\n(?P<body>.*?)^```", re.MULTILINE | re.DOTALL
)
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Example:
    line: str
    headers: dict[str, str]
    body: str
    status: int
    answer: str


def examples() -> list[Example]:
    found = []
    for match in EXAMPLE.finditer(PAGE.read_text()):
        first, *rest = match["request"].split("\n")
        headers = {}
        while rest and re.match(r"[\w-]+: ", rest[0]):
            name, _, value = rest.pop(0).partition(": ")
            headers[name] = value
        found.append(Example(first, headers, "\n".join(rest), int(match["status"]), match["body"]))
    return found


def filled(text: str, known: dict[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: known.get(match[1], match[0]), text)


def agree(documented: object, actual: object, known: dict[str, str], where: str = "$") -> None:
    """What is documented is there; `…` is anything, `{name}` is remembered or must be the same."""
    if isinstance(documented, dict):
        assert isinstance(actual, dict), where
        for name, value in documented.items():
            assert name in actual, f"{where}.{name} is missing"
            agree(value, actual[name], known, f"{where}.{name}")
    elif isinstance(documented, list):
        assert isinstance(actual, list), where
        assert len(documented) == len(actual), where
        for number, pair in enumerate(zip(documented, actual, strict=True)):
            agree(*pair, known, f"{where}[{number}]")
    elif isinstance(documented, str) and PLACEHOLDER.fullmatch(documented):
        name = PLACEHOLDER.fullmatch(documented)[1]
        assert known.setdefault(name, actual) == actual, where
    elif isinstance(documented, str) and "…" in documented:
        pattern = ".*".join(map(re.escape, documented.split("…")))
        assert documented == "…" or re.fullmatch(pattern, str(actual)), where
    else:
        assert documented == actual, where


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    yield from open_lab(tmp_path / "home", InlineLauncher())


@pytest.fixture
def docs_database(postgres: PostgresServer) -> PostgresServer:
    if not postgres.execute("SELECT 1 FROM pg_database WHERE datname = 'docs'"):
        postgres.create_database("docs")
        postgres.execute(
            """
            CREATE TABLE orders (id bigint PRIMARY KEY, amount numeric(10,2), placed timestamptz);
            INSERT INTO orders SELECT g, g * 1.5, now() FROM generate_series(1, 5000) g;
            CREATE TABLE customers (id int PRIMARY KEY, name text);
            INSERT INTO customers SELECT g, 'c' || g FROM generate_series(1, 10) g;
            ANALYZE;
            """,
            "docs",
        )
    return postgres


def test_every_example_is_true(lab: Lab, docs_database: PostgresServer):
    known = {"host": docs_database.host, "port": str(docs_database.port)}
    assert len(examples()) >= 12
    for example in examples():
        method, _, path = filled(example.line, known).partition(" ")
        body = json.loads(filled(example.body, known)) if example.body else None
        response = lab.call(method, path, json=body, headers=example.headers)
        assert response.status_code == example.status, (example.line, response.text)
        agree(json.loads(example.answer), response.json(), known, example.line)


def test_every_route_has_its_heading():
    headings = set(re.findall(r"^#{3,4} ([A-Z]+ /\S*)$", PAGE.read_text(), re.MULTILINE))
    assert headings == {f"{method} {path}" for method, path in ROUTES}
