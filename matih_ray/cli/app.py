"""The command tree, and the options that come before a command."""

from __future__ import annotations

from typing import Annotated

import typer

from matih_ray import __version__
from matih_ray.cli import (
    chat,
    connectors,
    endpoints,
    jobs,
    maintain,
    notifications,
    runs,
    schedules,
    service,
    sql,
    state,
    tables,
    units,
)
from matih_ray.cli.requests import ClientSettings

app = typer.Typer(
    name="matih",
    help="Ingest from connectors into tables.",
    no_args_is_help=True,
    add_completion=False,
    # plain help and errors: the same on a terminal, in a log and in a test
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 Typer calls it with the value alone
    if wanted:
        typer.echo(f"matih {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    *,
    url: Annotated[
        str | None, typer.Option("--url", help="Address of the control API [env: MATIH_URL].")
    ] = None,
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """Ingest from connectors into tables. The token comes from MATIH_TOKEN, never from here."""
    del version  # answered by its callback
    settings = ClientSettings()
    context.obj = settings if url is None else settings.model_copy(update={"url": url})


app.add_typer(connectors.app, name="connectors")
app.add_typer(endpoints.app, name="endpoints")
app.add_typer(jobs.app, name="jobs")
app.command("savepoint")(jobs.savepoint)
app.add_typer(notifications.app, name="notifications")
app.command("units")(units.units)
app.command("preview")(units.preview)
app.command("configure")(units.configure)
app.command("plan")(units.plan)
app.command("run")(runs.run)
app.add_typer(runs.app, name="runs")
app.add_typer(schedules.app, name="schedules")
app.command("sql")(sql.sql)
app.command("maintain")(maintain.maintain)
app.add_typer(tables.app, name="tables")
app.add_typer(state.app, name="state")
app.command("chat")(chat.chat)
app.command("token")(service.token)
app.command("health")(service.health)
