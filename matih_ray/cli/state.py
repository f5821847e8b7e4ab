"""`matih state …`: where the next incremental run of a unit starts."""

from __future__ import annotations

import json

import typer

from matih_ray.cli.client import ControlClient
from matih_ray.cli.options import (
    DEFAULT_SINK,
    EndpointArgument,
    JsonOption,
    SinkOption,
    UnitArgument,
    YesOption,
    client_of,
    confirm,
)
from matih_ray.cli.output import Output
from matih_ray.cli.requests import Query
from matih_ray.model.checkpoint import Checkpoint

app = typer.Typer(no_args_is_help=True, help="Checkpoints of units.", rich_markup_mode=None)


@app.command("show")
def show(
    context: typer.Context,
    endpoint: EndpointArgument,
    unit: UnitArgument,
    *,
    sink: SinkOption = DEFAULT_SINK,
    as_json: JsonOption = False,
) -> None:
    """Show the checkpoint and the last runs of a unit."""
    client = client_of(context)
    found = client.checkpoint(_stream(client, endpoint, unit, sink))
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(found)
        return
    checkpoint = found.checkpoint or Checkpoint()
    output.facts(
        [
            ("unit", found.unit_id),
            ("sink", found.sink_id),
            ("cursor", json.dumps(checkpoint.cursor)),
            ("cursor column", checkpoint.cursor_column),
            ("written by", checkpoint.run_id),
            ("slices", checkpoint.through),
            ("state", None if found.state is None else found.state.value),
            ("last run", found.last_run_id),
            ("last complete", found.last_completed_run_id),
        ]
    )


@app.command("reset")
def reset(
    context: typer.Context,
    endpoint: EndpointArgument,
    unit: UnitArgument,
    *,
    sink: SinkOption = DEFAULT_SINK,
    yes: YesOption = False,
) -> None:
    """Forget the checkpoint, so that the next run starts anew. Loaded rows stay."""
    client = client_of(context)
    stream = _stream(client, endpoint, unit, sink)
    confirm(f"Forget where loading {unit} into {sink} stopped?", yes=yes)
    client.reset_checkpoint(stream)
    Output(as_json=False).line(f"reset {unit}")


def _stream(client: ControlClient, endpoint: str, unit: str, sink: str) -> Query:
    return {"endpointId": client.endpoint(endpoint).endpoint_id, "unitId": unit, "sinkId": sink}
