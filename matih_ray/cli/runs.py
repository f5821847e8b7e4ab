"""`matih run` and `matih runs …`: starting runs, watching them, telling them what to do."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from matih_ray.api.wire import RunBody
from matih_ray.cli.failures import EXIT_NO
from matih_ray.cli.following import follow, rows_per_second
from matih_ray.cli.options import (
    CursorOption,
    EndpointArgument,
    JsonOption,
    LoadSinkOption,
    ModeOption,
    PolicyOption,
    RunArgument,
    UnitArgument,
    YesOption,
    client_of,
    confirm,
    load_of,
)
from matih_ray.cli.output import Output, note
from matih_ray.cli.units import print_columns
from matih_ray.model.run import RunState
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue

app = typer.Typer(no_args_is_help=True, help="Runs of units.", rich_markup_mode=None)

FollowOption = Annotated[bool, typer.Option("--follow", help="Watch it until it stops.")]


def run(
    context: typer.Context,
    endpoint: EndpointArgument,
    unit: UnitArgument,
    *,
    policy: PolicyOption = None,
    incremental: ModeOption = None,
    cursor: CursorOption = None,
    sink: LoadSinkOption = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Watch the run until it stops.")
    ] = True,
    fidelity: Annotated[
        bool, typer.Option("--fidelity", help="Print how each column arrives.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(help="The same key starts one run only.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Load a unit and watch; exit code 1 unless the run completes. Ctrl-C leaves it going."""
    client = client_of(context)
    found = client.endpoint(endpoint)
    load = load_of(found, unit, sink, policy, incremental=incremental, cursor=cursor)
    described = client.unit(found, unit) if fidelity else None
    # always with a key: a request that is repeated after a lost answer starts nothing twice
    started = client.start_run(load, key or uuid.uuid4().hex)
    output = Output(as_json=as_json)
    if described is not None and not as_json:
        print_columns(output, described, started.policy.columns)
    if not wait:
        _print_started(output, started, described)
        return
    if not as_json:
        output.line(f"run {started.run_id}")
    _end(output, follow(client, started, quiet=as_json), described)


@app.command("list")
def list_(
    context: typer.Context,
    *,
    endpoint: Annotated[str | None, typer.Option(help="Only of this endpoint.")] = None,
    unit: Annotated[str | None, typer.Option(help="Only of this unit.")] = None,
    state: Annotated[
        list[str] | None, typer.Option(help="Only in this state; repeat it for several.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    client = client_of(context)
    endpoint_id = None if endpoint is None else client.endpoint(endpoint).endpoint_id
    states = [name.upper() for name in state or ()]
    query = {"endpointId": endpoint_id, "unitId": unit, "state": states or None}
    listed = [found for found, _ in zip(client.runs(query), range(limit), strict=False)]
    output = Output(as_json=as_json)
    if output.as_json:
        output.document([found.to_dict() for found in listed])
        return
    output.table(
        ("RUN", "STATE", "UNIT", "SINK", "ROWS", "CREATED", "ERROR"),
        [
            (
                found.run_id,
                found.state.value,
                found.unit_id,
                found.sink_id,
                found.rows,
                found.created_at,
                None if found.error is None else found.error.code,
            )
            for found in listed
        ],
    )


@app.command("show")
def show(
    context: typer.Context,
    run_id: RunArgument,
    *,
    following: FollowOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a run; with --follow until it stops, and then exit like `matih run`."""
    client = client_of(context)
    found = client.run(run_id)
    output = Output(as_json=as_json)
    if following:
        _end(output, follow(client, found, quiet=as_json), None)
        return
    _print(output, found)


@app.command("slices")
def slices(context: typer.Context, run_id: RunArgument, *, as_json: JsonOption = False) -> None:
    """List the slices of a run with their statistics."""
    found = list(client_of(context).slices(run_id))
    output = Output(as_json=as_json)
    if output.as_json:
        output.document([slice_.to_dict() for slice_ in found])
        return
    output.table(
        ("#", "SLICE", "STATE", "ATTEMPTS", "ROWS", "BYTES", "READ S", "WRITE S", "ERROR"),
        [
            (
                slice_.sequence,
                slice_.key,
                slice_.state.value,
                slice_.attempts,
                slice_.rows,
                slice_.bytes,
                f"{slice_.read_s:.2f}",
                f"{slice_.write_s:.2f}",
                None if slice_.error is None else slice_.error.code,
            )
            for slice_ in found
        ],
    )


@app.command("pause")
def pause(context: typer.Context, run_id: RunArgument, *, as_json: JsonOption = False) -> None:
    """Ask a run to stop behind its last committed slice."""
    _print_told(Output(as_json=as_json), client_of(context).tell_run(run_id, "pause"))


@app.command("cancel")
def cancel(context: typer.Context, run_id: RunArgument, *, as_json: JsonOption = False) -> None:
    """Ask a run to end for good; what it has committed stays."""
    _print_told(Output(as_json=as_json), client_of(context).tell_run(run_id, "cancel"))


@app.command("rollback")
def rollback(
    context: typer.Context,
    run_id: RunArgument,
    *,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take back what the newest run of a unit has loaded, and its step of the checkpoint."""
    client = client_of(context)
    found = client.run(run_id)
    into = "" if found.target is None else f" from {found.target}"
    confirm(f"Take the {found.rows:,} rows of run {run_id}{into} back?", yes=yes)
    taken = client.tell_run(run_id, "rollback")
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(taken)
    else:
        output.line(f"run {run_id} is taken back")


@app.command("resume")
def resume(
    context: typer.Context,
    run_id: RunArgument,
    *,
    following: FollowOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let a paused or failed run go on behind its last committed slice."""
    client = client_of(context)
    resumed = client.tell_run(run_id, "resume")
    output = Output(as_json=as_json)
    if following:
        _end(output, follow(client, resumed, quiet=as_json), None)
    else:
        _print_told(output, resumed)


def _print_started(
    output: Output, started: RunBody, described: EndpointUnitDescriptor | None
) -> None:
    if output.as_json:
        output.document(_with_fidelity(started, described))
        return
    output.line(f"run {started.run_id}")
    note(f"follow it: matih runs show {started.run_id} --follow")


def _end(output: Output, ended: RunBody, described: EndpointUnitDescriptor | None) -> None:
    """Say how a run ended, in words and by the exit code."""
    if output.as_json:
        output.document(_with_fidelity(ended, described))
    else:
        speed = rows_per_second(ended)
        rate = "" if speed is None else f", {speed:,.0f} rows/s"
        into = "" if ended.target is None else f" into {ended.target}"
        output.line(f"{ended.state.value}: {ended.rows:,} rows{into}{rate}")
        _print_error(ended)
    if ended.state is not RunState.COMPLETED:
        raise typer.Exit(EXIT_NO)


def _with_fidelity(run: RunBody, described: EndpointUnitDescriptor | None) -> dict[str, JsonValue]:
    body = run.to_dict()
    if described is not None:
        chosen = run.policy.columns
        body["fidelity"] = [
            column.to_dict()
            for column in described.columns
            if chosen is None or column.name in chosen
        ]
    return body


def _print_told(output: Output, run: RunBody) -> None:
    if output.as_json:
        output.document(run)
    elif run.requested is not None and run.state.is_active:
        output.line(f"run {run.run_id} is asked to {run.requested.value.lower()}")
    else:
        output.line(f"run {run.run_id} is {run.state.value}")


def _print(output: Output, run: RunBody) -> None:
    if output.as_json:
        output.document(run)
        return
    progress = None if run.progress is None else f"{run.progress:.0%}"
    total = "?" if run.slices_total is None else run.slices_total
    output.facts(
        [
            ("run", run.run_id),
            ("state", run.state.value),
            ("asked to", None if run.requested is None else run.requested.value.lower()),
            ("unit", run.unit_id),
            ("endpoint", run.endpoint_id),
            ("sink", run.sink_id),
            ("target", run.target),
            ("mode", run.policy.run_mode.value),
            ("strategy", run.strategy),
            ("progress", progress),
            ("slices", f"{run.slices_committed}/{total}"),
            ("rows", run.rows),
            ("bytes", run.bytes),
            ("created", run.created_at),
            ("started", run.started_at),
            ("finished", run.finished_at),
            *(("note", text) for text in run.notes),
        ]
    )
    _print_error(run)


def _print_error(run: RunBody) -> None:
    if run.error is not None:
        note(f"error: {run.error.message} [{run.error.code}]")
        if run.state is RunState.FAILED:
            note(f"when that is solved: matih runs resume {run.run_id} --follow")
