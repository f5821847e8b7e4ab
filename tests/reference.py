"""Builds the reference part of docs/index.md from the code: `make docs` writes it again.

A test compares the two, so that every setting, command, route and error code is documented and
nothing is documented that is gone.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import click
import typer
from pydantic import SecretStr

import matih_ray.api.routes as api_routes
from matih_ray.api.middleware import API_PREFIX
from matih_ray.api.problems import family_of
from matih_ray.cli.app import app as cli
from matih_ray.errors import MatihError
from matih_ray.settings import Settings

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "index.md"
BEGIN = "<!-- reference: made by `make docs` -->\n"


def settings() -> Iterator[tuple[str, ...]]:
    for name, field in Settings.model_fields.items():
        default = field.default
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        shown = "" if default is None else f"`{default}`"
        yield f"`MATIH_{name.upper()}`", shown, field.description or ""


def commands() -> Iterator[tuple[str, ...]]:
    def walk(command: click.Command, path: str) -> Iterator[tuple[str, ...]]:
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            for name, child in command.commands.items():
                yield from walk(child, f"{path} {name}")
        else:
            yield f"`{path}`", (command.help or "").split("\n\n")[0].replace("\n", " ")

    yield from walk(typer.main.get_command(cli), "matih")


def routes() -> Iterator[tuple[str, ...]]:
    for info in pkgutil.iter_modules(api_routes.__path__):
        router = importlib.import_module(f"{api_routes.__name__}.{info.name}").router
        for route in router.routes:
            for method in sorted(route.methods):
                path = re.sub(r":\w+}", "}", route.path)  # without the converter's name
                yield f"`{method} {API_PREFIX}{path}`", route.summary


def errors() -> Iterator[tuple[str, ...]]:
    def walk(kind: type[MatihError]) -> Iterator[type[MatihError]]:
        yield kind
        for child in kind.__subclasses__():
            if child.__module__ == MatihError.__module__:
                yield from walk(child)

    for kind in walk(MatihError):
        meaning = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        yield f"`{kind.code}`", str(family_of(kind).status), kind.recovery.value, meaning


def reference() -> str:
    """The generated part of the page."""
    parts = [
        ("Settings", ("variable", "default", "meaning"), settings()),
        ("Commands", ("command", "what it does"), commands()),
        ("HTTP", ("route", "what it does"), routes()),
        ("Errors", ("code", "HTTP status", "what a run does", "meaning"), errors()),
    ]
    return "".join(_section(*part) for part in parts)


def _section(title: str, columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    table = "".join("| " + " | ".join(cells) + " |\n" for cells in lines)
    return f"\n## {title}\n\n{table}"


def write() -> None:
    """Replace the generated part of the page."""
    written, _, _ = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(written + BEGIN + reference())


if __name__ == "__main__":
    write()
