"""`matih connectors …`: tested, discovered, watched connections to sources."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from matih_ray.api.connector_wire import ConnectorBody
from matih_ray.cli.failures import EXIT_NO
from matih_ray.cli.options import JsonOption, YesOption, client_of, confirm, pairs
from matih_ray.cli.output import Output, note
from matih_ray.cli.secrets import asked_secrets
from matih_ray.model.value import JsonValue

app = typer.Typer(
    no_args_is_help=True, help="Connectors: tested connections to sources.", rich_markup_mode=None
)

ConnectorArgument = Annotated[
    str, typer.Argument(metavar="CONNECTOR", help="Name or id of a connector.")
]
AskOption = Annotated[
    bool, typer.Option("--ask/--no-ask", help="Ask for secrets that no variable holds.")
]
# Fields that every connector has; others of its type go under `metadata`.
_FIELDS = ("host", "port", "database", "schema", "sslEnabled", "sslMode")
_LOGIN = ("username", "role", "warehouse")


@app.command("types")
def types(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """List connector types."""
    found = client_of(context).plugins("sources")
    output = Output(as_json=as_json)
    if output.as_json:
        output.document([plugin.to_dict() for plugin in found])
        return
    output.table(
        ("TYPE", "AVAILABLE", "SECRETS", "FIELDS"),
        [
            (
                plugin.name,
                "yes" if plugin.available else plugin.needs,
                ", ".join(plugin.secret_fields),
                ", ".join(_properties(plugin.config_schema)),
            )
            for plugin in found
        ],
    )


@app.command("add")
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name; tables are named after it.")],
    *,
    type_: Annotated[str, typer.Option("--type", help="Connector type, such as POSTGRESQL.")],
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="host, port, username, …; KEY:=JSON for JSON."
        ),
    ] = None,
    ask: AskOption = True,
    as_json: JsonOption = False,
) -> None:
    """Test a connection, save it and discover its schemas.

    Secrets are never arguments: each is taken from MATIH_SECRET_<FIELD> (MATIH_SECRET_PASSWORD),
    or asked for on a terminal without being shown.
    """
    client = client_of(context)
    draft = draft_of(pairs(config, "--set"))
    credentials = draft.setdefault("credentials", {})
    assert isinstance(credentials, dict)  # noqa: S101 made a line above
    credentials.update(asked_secrets(client, type_, ask=ask))
    created = client.create_connector({"name": name, "type": type_, **draft}, uuid.uuid4().hex)
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(created)
        return
    output.line(f"created {created.name} ({created.id}), status {created.status.value}")
    if created.tables_discovered is None:
        note(f"discovery goes on; see: matih connectors show {name}")
    else:
        note(f"{created.tables_discovered} tables; next: matih units {name}")


@app.command("list")
def list_(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """List connectors with their last known status."""
    found = list(client_of(context).connectors())
    output = Output(as_json=as_json)
    if output.as_json:
        output.document([connector.to_dict() for connector in found])
        return
    output.table(
        ("NAME", "TYPE", "STATUS", "TABLES", "TESTED", "RESULT"),
        [
            (c.name, c.type, c.status.value, c.tables_discovered, c.last_tested_at,
             c.last_test_result)
            for c in found
        ],
    )  # fmt: skip


@app.command("show")
def show(
    context: typer.Context, connector: ConnectorArgument, *, as_json: JsonOption = False
) -> None:
    """Show a connector, without its credentials."""
    _show(client_of(context).connector(connector), Output(as_json=as_json))


@app.command("test")
def check(
    context: typer.Context, connector: ConnectorArgument, *, as_json: JsonOption = False
) -> None:
    """Test a connection stage by stage; exit code 1 when that fails."""
    client = client_of(context)
    outcome = client.test_connector(client.connector(connector))
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(outcome)
    else:
        output.table(
            ("STAGE", "STATE", "MS"),
            [(stage.name, stage.state.value, stage.latency_ms) for stage in outcome.stages],
        )
        if outcome.success:
            output.line(f"ok: {outcome.server_version}")
        else:
            output.line(f"failed: {outcome.message} [{outcome.error_code}]")
            note(outcome.remediation or "")
    if not outcome.success:
        raise typer.Exit(EXIT_NO)


@app.command("discover")
def discover(
    context: typer.Context,
    connector: ConnectorArgument,
    *,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the one that runs.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read the source's schemas into the catalog, in the background."""
    client = client_of(context)
    found = client.connector(connector)
    after = client.cancel_discovery(found) if cancel else client.discover(found)
    _show(after, Output(as_json=as_json))


@app.command("usage")
def usage(
    context: typer.Context,
    connector: ConnectorArgument,
    *,
    days: Annotated[int, typer.Option("--days", min=1, help="How far back.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """Show what a connector's runs have read."""
    client = client_of(context)
    used = client.usage(client.connector(connector), days)
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(used)
        return
    output.facts(
        [
            ("since", used.since),
            ("runs", used.runs),
            ("completed", used.completed_runs),
            ("failed", used.failed_runs),
            ("rows", used.rows),
            ("bytes", used.bytes),
            ("last used", used.last_used_at),
        ]
    )


@app.command("schemas")
def schemas(
    context: typer.Context, connector: ConnectorArgument, *, as_json: JsonOption = False
) -> None:
    """List what discovery found."""
    client = client_of(context)
    found = list(client.schemas(client.connector(connector)))
    output = Output(as_json=as_json)
    if output.as_json:
        output.document([schema.to_dict() for schema in found])
        return
    output.table(
        ("SCHEMA", "TABLE", "TYPE", "COLUMNS", "ROWS", "BYTES"),
        [
            (schema.name, t.name, t.type, t.columns, t.estimated_rows, t.size_bytes)
            for schema in found
            for t in schema.tables
        ],
    )


@app.command("rotate")
def rotate(
    context: typer.Context,
    connector: ConnectorArgument,
    *,
    username: Annotated[
        str | None, typer.Option("--username", help="Another user; the same if not given.")
    ] = None,
    ask: AskOption = True,
    as_json: JsonOption = False,
) -> None:
    """Replace a connector's credentials, if the new ones pass the test."""
    client = client_of(context)
    found = client.connector(connector)
    user = username or found.metadata.get("user")
    credentials: dict[str, JsonValue] = {} if user is None else {"username": user}
    credentials.update(asked_secrets(client, found.type, ask=ask))
    _show(client.rotate(found, credentials), Output(as_json=as_json))


@app.command("delete")
def delete(context: typer.Context, connector: ConnectorArgument, *, yes: YesOption = False) -> None:
    """Delete a connector with its credentials, catalog and checkpoints. Loaded tables stay."""
    client = client_of(context)
    found = client.connector(connector)
    confirm(f"Delete connector {found.name} and its checkpoints?", yes=yes)
    client.delete_connector(found)
    Output(as_json=False).line(f"deleted {found.name}")


def draft_of(given: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Fields by name, sorted into what the API calls them."""
    draft: dict[str, JsonValue] = {name: given[name] for name in _FIELDS if name in given}
    port = draft.get("port")
    if isinstance(port, str) and port.isdigit():
        draft["port"] = int(port)
    login: dict[str, JsonValue] = {name: given[name] for name in _LOGIN if name in given}
    draft["credentials"] = login
    draft["metadata"] = {k: v for k, v in given.items() if k not in (*_FIELDS, *_LOGIN)}
    return draft


def _show(connector: ConnectorBody, output: Output) -> None:
    if output.as_json:
        output.document(connector)
        return
    discovery = connector.discovery
    output.facts(
        [
            ("name", connector.name),
            ("type", connector.type),
            ("id", connector.id),
            ("status", connector.status.value),
            ("tested", connector.last_tested_at),
            ("result", connector.last_test_result),
            ("host", connector.host),
            ("port", connector.port),
            ("database", connector.database),
            ("tls", connector.ssl_mode),
            ("discovery", None if discovery is None else discovery.state.value),
            ("tables", connector.tables_discovered),
            *((f"metadata.{key}", str(value)) for key, value in connector.metadata.items()),
        ]
    )


def _properties(schema: dict[str, JsonValue] | None) -> list[str]:
    properties = (schema or {}).get("properties")
    return list(properties) if isinstance(properties, dict) else []
