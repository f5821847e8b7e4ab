"""Options that several commands share, and what they are turned into."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from matih_ray.api.wire import EndpointBody
from matih_ray.cli.client import ControlClient
from matih_ray.cli.failures import EXIT_CALLER, CliError
from matih_ray.model.value import JsonValue

EndpointArgument = Annotated[
    str, typer.Argument(metavar="ENDPOINT", help="Name or id of an endpoint.")
]
UnitArgument = Annotated[str, typer.Argument(metavar="UNIT", help="Unit id, as in the catalog.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run id.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
SinkOption = Annotated[str, typer.Option("--sink", help="Sink that rows go to.")]
LoadSinkOption = Annotated[
    str | None,
    typer.Option("--sink", help="Sink that rows go to; iceberg, or as the unit is configured."),
]
PolicyOption = Annotated[
    list[str] | None,
    typer.Option("--policy", metavar="KEY=VALUE", help="Policy; KEY:=JSON for other than text."),
]
ModeOption = Annotated[
    bool | None,
    typer.Option("--incremental/--full", help="Rows behind the checkpoint, or all (default)."),
]
CursorOption = Annotated[
    str | None, typer.Option("--cursor", metavar="COLUMN", help="Column that orders new rows.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask.")]

DEFAULT_SINK = "iceberg"


def client_of(context: typer.Context) -> ControlClient:
    """The client that the options before the command describe; closed when the command ends."""
    client = ControlClient(context.obj)
    context.call_on_close(client.close)
    return client


def pairs(given: Sequence[str] | None, option: str) -> dict[str, JsonValue]:
    """`key=text` and `key:=json` arguments as an object.

    Raises:
        typer.BadParameter: Not a pair, not JSON, or a key that is given twice.
    """
    found: dict[str, JsonValue] = {}
    for pair in given or ():
        name, separator, value = pair.partition("=")
        is_json = name.endswith(":")
        key = name.removesuffix(":")
        if not separator or not key:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint=option)
        if key in found:
            raise typer.BadParameter(f"{key} is given twice", param_hint=option)
        try:
            found[key] = json.loads(value) if is_json else value
        except ValueError:
            raise typer.BadParameter(
                f"the value of {key} is not JSON; write {key}={value} for text", param_hint=option
            ) from None
    return found


def load_of(
    endpoint: EndpointBody,
    unit: str,
    sink: str | None,
    policy: Sequence[str] | None,
    *,
    incremental: bool | None,
    cursor: str | None,
) -> dict[str, JsonValue]:
    """The body that asks for a plan or a run; what is not chosen is left to the configuration."""
    chosen = pairs(policy, "--policy")
    if incremental is not None:
        chosen["runMode"] = "incremental" if incremental else "full"
    if cursor is not None:
        chosen["cursorColumn"] = cursor
    load: dict[str, JsonValue] = {"endpointId": endpoint.endpoint_id, "unitId": unit}
    if sink is not None:
        load["sinkId"] = sink
    if chosen:
        load["policy"] = chosen
    return load


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; `--yes` is the answer of scripts."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(f"{question} Without a terminal, say --yes.", EXIT_CALLER)
    typer.confirm(question, abort=True, err=True)
