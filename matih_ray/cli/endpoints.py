"""`matih endpoints …`: a tenant's connectors."""

from __future__ import annotations

from typing import Annotated

import typer

from matih_ray.cli.failures import EXIT_NO
from matih_ray.cli.options import (
    EndpointArgument,
    JsonOption,
    YesOption,
    client_of,
    confirm,
    pairs,
)
from matih_ray.cli.output import Output, note
from matih_ray.cli.secrets import asked_secrets

app = typer.Typer(
    no_args_is_help=True, help="Endpoints: configured connectors.", rich_markup_mode=None
)


@app.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name; tables are named after it.")],
    *,
    type_: Annotated[str, typer.Option("--type", help="Connector type, such as POSTGRESQL.")],
    config: Annotated[
        list[str] | None,
        typer.Option("--config", metavar="KEY=VALUE", help="Configuration; KEY:=JSON for JSON."),
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="Ask for secrets that no variable holds.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Create an endpoint.

    Secrets are never arguments, which other users of the machine could read: each is taken from
    MATIH_SECRET_<FIELD> (MATIH_SECRET_PASSWORD), or asked for on a terminal without being shown.
    """
    client = client_of(context)
    configuration = pairs(config, "--config")
    secrets = asked_secrets(client, type_, ask=ask)
    created = client.create_endpoint(
        {"name": name, "type": type_, "config": configuration, "secrets": secrets}
    )
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(created)
        return
    output.line(f"created {created.name} ({created.endpoint_id})")
    note(f"next: matih endpoints test {name}; matih endpoints collect {name}")


@app.command("list")
def list_(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """List endpoints."""
    found = list(client_of(context).endpoints())
    output = Output(as_json=as_json)
    if output.as_json:
        output.document([endpoint.to_dict() for endpoint in found])
        return
    output.table(
        ("NAME", "TYPE", "ID", "SECRETS", "UPDATED"),
        [(e.name, e.type, e.endpoint_id, e.has_secrets, e.updated_at) for e in found],
    )


@app.command("show")
def show(
    context: typer.Context, endpoint: EndpointArgument, *, as_json: JsonOption = False
) -> None:
    """Show an endpoint's configuration, without secrets."""
    found = client_of(context).endpoint(endpoint)
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(found)
        return
    output.facts(
        [
            ("name", found.name),
            ("type", found.type),
            ("id", found.endpoint_id),
            ("secrets", found.has_secrets),
            ("updated", found.updated_at),
            *((f"config.{key}", str(value)) for key, value in found.config.items()),
        ]
    )


@app.command("test")
def check(
    context: typer.Context, endpoint: EndpointArgument, *, as_json: JsonOption = False
) -> None:
    """Connect and log in; exit code 1 when that fails."""
    client = client_of(context)
    outcome = client.test_endpoint(client.endpoint(endpoint))
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(outcome)
    elif outcome.success:
        output.line(f"ok: {outcome.server_version} answered in {outcome.latency_ms or 0:.0f} ms")
    else:
        output.line(f"failed: {outcome.message} [{outcome.error_code}]")
    if not outcome.success:
        raise typer.Exit(EXIT_NO)


@app.command("collect")
def collect(
    context: typer.Context,
    endpoint: EndpointArgument,
    *,
    pattern: Annotated[
        str | None, typer.Option(help="Only units whose id matches this glob.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read the source's units into the catalog."""
    client = client_of(context)
    found = client.collect(client.endpoint(endpoint), pattern)
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(found)
        return
    output.line(f"{found.units} units collected")
    if found.skipped_total:
        note(f"{found.skipped_total} units could not be described:")
        for skipped in found.skipped:
            note(f"  {skipped.unit_id}: {skipped.error.message} [{skipped.error.code}]")


@app.command("delete")
def delete(context: typer.Context, endpoint: EndpointArgument, *, yes: YesOption = False) -> None:
    """Delete an endpoint with its catalog, checkpoints and secrets. Loaded tables stay."""
    client = client_of(context)
    found = client.endpoint(endpoint)
    confirm(f"Delete endpoint {found.name} and its checkpoints?", yes=yes)
    client.delete_endpoint(found)
    Output(as_json=False).line(f"deleted {found.name}")
