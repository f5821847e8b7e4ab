"""`matih sql`: run a bounded Flink SQL script in this process."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from matih_ray.cli.failures import EXIT_CALLER, EXIT_ENVIRONMENT, EXIT_NO, CliError
from matih_ray.cli.output import clean, note

if TYPE_CHECKING:
    import pyarrow as pa

    from matih_ray.errors import MatihError
    from matih_ray.streaming.job import Script
    from matih_ray.streaming.sql.script import Insert


def sql(
    file: Annotated[Path, typer.Option("--file", "-f", help="Script of Flink SQL statements.")],
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="TABLE.KEY=VALUE", help="Override a table's option."),
    ] = None,
    *,
    explain: Annotated[bool, typer.Option("--explain", help="Show plans, run nothing.")] = False,
    late_rows: Annotated[
        Path | None, typer.Option("--late-rows", help="File that late rows go to, as JSON lines.")
    ] = None,
) -> None:
    """Run a script of Flink SQL over bounded tables, in this process.

    ${NAME} in a string literal is taken from the environment.
    """
    # not at the top: no other command needs them
    from matih_ray.errors import (
        ConfigurationError,
        MatihError,
        RequestError,
        SinkUnavailableError,
        SourceUnavailableError,
    )
    from matih_ray.settings import Settings
    from matih_ray.streaming.job import Script
    from matih_ray.streaming.sql.script import parse_script

    try:
        statements = parse_script(_text(file), os.environ)
        script = Script(Settings(), _overrides(option or []), sys.stdout)
        inserts = script.prepare(statements)
        for table, options in script.effective_options().items():
            shown = " ".join(f"{key}={value}" for key, value in options.items())
            note(f"table {table} {shown}".rstrip())
        if explain:
            _explain(script, inserts)
        else:
            _run(script, inserts, late_rows)
    except MatihError as error:
        is_environment = isinstance(
            error, ConfigurationError | SourceUnavailableError | SinkUnavailableError
        )
        is_caller = isinstance(error, RequestError)
        code = EXIT_ENVIRONMENT if is_environment else EXIT_CALLER if is_caller else EXIT_NO
        raise CliError(_told(error), code) from None


def _told(error: MatihError) -> str:
    return f"{error.message} [{error.code}]"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {file}: {error}", EXIT_CALLER) from None


def _overrides(options: list[str]) -> dict[str, str]:
    found = {}
    for text in options:
        key, separator, value = text.partition("=")
        if not separator or "." not in key:
            raise typer.BadParameter("write TABLE.KEY=VALUE", param_hint="--option")
        found[key] = value
    return found


def _explain(script: Script, inserts: list[Insert]) -> None:
    for insert in inserts:
        for line in script.explain(insert):
            typer.echo(clean(line))


def _run(script: Script, inserts: list[Insert], late_rows: Path | None) -> None:
    for name in script.create_tables():
        note(f"catalog table {name} is there")
    from matih_ray.streaming.pipeline import Aside

    late = late_rows.open("w", encoding="utf-8") if late_rows else None

    def on_late(batch: pa.RecordBatch) -> None:
        if late is not None:
            late.writelines(f"{json.dumps(row, default=str)}\n" for row in batch.to_pylist())

    try:
        for insert in inserts:
            if insert.explain:
                _explain(script, [insert])
                continue
            start = time.monotonic()
            result = script.run(insert, Aside(late=on_late))
            seconds = time.monotonic() - start
            note(
                f"{result.target}: {result.rows} rows from {result.counts.read} read, "
                f"{result.counts.late} late, {result.counts.bad} unreadable, {seconds:.1f} s"
            )
    finally:
        if late is not None:
            late.close()
