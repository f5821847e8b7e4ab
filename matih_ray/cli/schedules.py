"""`matih schedules …`: units that are loaded again and again."""

from __future__ import annotations

from typing import Annotated

import typer

from matih_ray.cli.options import JsonOption, YesOption, client_of, confirm, pairs
from matih_ray.cli.output import Output
from matih_ray.model.schedule import Schedule
from matih_ray.model.value import JsonValue

app = typer.Typer(no_args_is_help=True, help="Schedules: loads that repeat.", rich_markup_mode=None)

ScheduleArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Id of a schedule.")]


@app.command("add")
def add(
    context: typer.Context,
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name or id.")],
    unit: Annotated[str, typer.Argument(metavar="UNIT", help="Unit id, such as public.orders.")],
    *,
    cron: Annotated[
        str | None, typer.Option("--cron", help="Five fields, such as '0 2 * * *'.")
    ] = None,
    every_s: Annotated[int | None, typer.Option("--every-s", help="Interval in seconds.")] = None,
    time_zone: Annotated[str, typer.Option("--time-zone", help="Of --cron.")] = "UTC",
    jitter_s: Annotated[int, typer.Option("--jitter-s", help="Largest shift.")] = 0,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for an active run instead of leaving a time out.")
    ] = False,
    sink: Annotated[str, typer.Option("--sink", help="Name or id of the sink.")] = "iceberg",
    policy: Annotated[
        list[str] | None,
        typer.Option("--policy", metavar="KEY=VALUE", help="As in POST /runs; KEY:=JSON for JSON."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Load a unit at these times from now on."""
    client = client_of(context)
    timing: dict[str, JsonValue] = {
        "cron": cron,
        "everyS": every_s,
        "timeZone": time_zone,
        "jitterS": jitter_s,
        "overlap": "wait" if wait else "skip",
    }
    draft: dict[str, JsonValue] = {
        "endpointId": client.endpoint(endpoint).endpoint_id,
        "unitId": unit,
        "sinkId": sink,
        "policy": dict(pairs(policy, "--policy")),
        "timing": timing,
    }
    _show(client.create_schedule(draft), Output(as_json=as_json))


@app.command("list")
def list_(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """List schedules."""
    found = list(client_of(context).schedules())
    output = Output(as_json=as_json)
    if output.as_json:
        output.document([schedule.to_dict() for schedule in found])
        return
    output.table(
        ("SCHEDULE", "UNIT", "WHEN", "DUE", "LAST"),
        [
            (
                schedule.schedule_id,
                schedule.unit_id,
                _when(schedule),
                schedule.due_at,
                None if schedule.last is None else schedule.last.outcome.value,
            )
            for schedule in found
        ],
    )


@app.command("show")
def show(
    context: typer.Context, schedule: ScheduleArgument, *, as_json: JsonOption = False
) -> None:
    """Show when a schedule is due and how its last time went."""
    _show(client_of(context).schedule(schedule), Output(as_json=as_json))


@app.command("disable")
def disable(
    context: typer.Context, schedule: ScheduleArgument, *, as_json: JsonOption = False
) -> None:
    """Start no further runs until it is enabled again."""
    _show(client_of(context).change_schedule(schedule, {"enabled": False}), Output(as_json=as_json))


@app.command("enable")
def enable(
    context: typer.Context, schedule: ScheduleArgument, *, as_json: JsonOption = False
) -> None:
    """Start runs again."""
    _show(client_of(context).change_schedule(schedule, {"enabled": True}), Output(as_json=as_json))


@app.command("delete")
def delete(context: typer.Context, schedule: ScheduleArgument, *, yes: YesOption = False) -> None:
    """Delete a schedule. An active run goes on."""
    confirm(f"Delete schedule {schedule}?", yes=yes)
    client_of(context).delete_schedule(schedule)
    Output(as_json=False).line(f"deleted {schedule}")


def _when(schedule: Schedule) -> str:
    timing = schedule.timing
    return f"{timing.cron} {timing.time_zone}" if timing.cron else f"every {timing.every_s} s"


def _show(schedule: Schedule, output: Output) -> None:
    if output.as_json:
        output.document(schedule)
        return
    last = schedule.last
    output.facts(
        [
            ("schedule", schedule.schedule_id),
            ("unit", schedule.unit_id),
            ("sink", schedule.sink_id),
            ("when", _when(schedule)),
            ("enabled", schedule.enabled),
            ("due", schedule.due_at),
            ("last", None if last is None else last.outcome.value),
            ("last at", None if last is None else last.fired_at),
            ("last run", None if last is None else last.run_id),
            ("message", None if last is None else last.message),
        ]
    )
