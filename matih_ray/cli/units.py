"""`matih units` and `matih plan`: what there is, and what a run would read."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from matih_ray.cli.options import (
    CursorOption,
    EndpointArgument,
    JsonOption,
    LoadSinkOption,
    ModeOption,
    PolicyOption,
    UnitArgument,
    client_of,
    load_of,
)
from matih_ray.cli.output import Output, note
from matih_ray.model.plan import IngestionPlan
from matih_ray.model.policy import IngestionPolicy
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.model.value import JsonValue

# Slices of a plan that are printed unless all are asked for.
SHOWN_SLICES = 50


def units(
    context: typer.Context,
    endpoint: EndpointArgument,
    unit: Annotated[
        str | None, typer.Argument(metavar="[UNIT]", help="Show this unit's columns.")
    ] = None,
    *,
    pattern: Annotated[
        str | None, typer.Option(help="Only units whose id matches this glob.")
    ] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Disabled units, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the units of an endpoint's catalog, or show the columns of one."""
    client = client_of(context)
    found = client.endpoint(endpoint)
    output = Output(as_json=as_json)
    if unit is not None:
        described = client.unit(found, unit)
        if output.as_json:
            output.document(described)
        else:
            print_columns(output, described)
        return
    listed = list(client.units(found, pattern, disabled=disabled))
    if output.as_json:
        output.document([each.to_dict() for each in listed])
        return
    output.table(
        ("UNIT", "KIND", "ROWS (ESTIMATE)", "COLUMNS", "KEY", "CURSORS"),
        [
            (
                each.unit_id,
                each.kind,
                each.estimated_rows,
                len(each.columns),
                ", ".join(each.primary_key) or None,
                ", ".join(each.cursor_candidates) or None,
            )
            for each in listed
        ],
    )
    if not listed:
        note(f"no units; is the catalog collected? matih endpoints collect {endpoint}")


def configure(
    context: typer.Context,
    endpoint: EndpointArgument,
    unit: UnitArgument,
    *,
    enabled: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Whether it may be loaded.")
    ] = None,
    policy: PolicyOption = None,
    incremental: ModeOption = None,
    cursor: CursorOption = None,
    sink: LoadSinkOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose what runs of a unit do unless they say otherwise; without options, show it."""
    client = client_of(context)
    found = client.endpoint(endpoint)
    load = load_of(found, unit, sink, policy, incremental=incremental, cursor=cursor)
    change = {name: value for name, value in load.items() if name in ("sinkId", "policy")}
    if enabled is not None:
        change["enabled"] = enabled
    if change:
        configured = client.configure_unit(found, unit, change)
    else:
        configured = client.unit_configuration(found, unit)
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(configured)
        return
    policy_given = configured.policy or IngestionPolicy()
    chosen = policy_given.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    output.facts(
        [
            ("unit", configured.unit_id),
            ("enabled", "yes" if configured.enabled else "no"),
            ("sink", configured.sink_id),
            ("policy", ", ".join(f"{name}={value}" for name, value in chosen.items()) or None),
            ("version", configured.version),
        ]
    )


def plan(
    context: typer.Context,
    endpoint: EndpointArgument,
    unit: UnitArgument,
    *,
    policy: PolicyOption = None,
    incremental: ModeOption = None,
    cursor: CursorOption = None,
    sink: LoadSinkOption = None,
    show_all: Annotated[bool, typer.Option("--all", help="Print all slices.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the slices that a run started now would read. Starts nothing."""
    client = client_of(context)
    load = load_of(
        client.endpoint(endpoint), unit, sink, policy, incremental=incremental, cursor=cursor
    )
    made = client.plan(load)
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(made)
    else:
        _print_plan(output, made, len(made.slices) if show_all else SHOWN_SLICES)


def preview(
    context: typer.Context,
    endpoint: EndpointArgument,
    unit: UnitArgument,
    *,
    policy: PolicyOption = None,
    rows: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Print some rows that a run would read. Starts nothing."""
    client = client_of(context)
    found = client.endpoint(endpoint)
    load = load_of(found, unit, None, policy, incremental=None, cursor=None)
    seen = client.preview(load, rows)
    output = Output(as_json=as_json)
    if output.as_json:
        output.document(seen)
        return
    lines = [[_cell(value) for value in row] for row in seen.rows]
    output.table([column.name for column in seen.columns], lines)


def _cell(value: JsonValue) -> str | int | float | None:
    if value is None or isinstance(value, (str, int, float)):
        return value
    return json.dumps(value, ensure_ascii=False)


def print_columns(
    output: Output, unit: EndpointUnitDescriptor, chosen: tuple[str, ...] | None = None
) -> None:
    """How each column arrives: exact, widened, encoded or refused."""
    output.table(
        ("COLUMN", "TYPE", "ARRIVES AS", "FIDELITY", "HOW"),
        [
            (
                column.name,
                column.native_type,
                column.arrow_type,
                column.fidelity.value,
                column.encoding,
            )
            for column in unit.columns
            if chosen is None or column.name in chosen
        ],
    )


def _print_plan(output: Output, plan: IngestionPlan, shown: int) -> None:
    estimates = [slice_.estimated_rows for slice_ in plan.slices]
    rows = None if None in estimates else sum(estimate or 0 for estimate in estimates)
    output.table(
        ("#", "SLICE", "ROWS (ESTIMATE)", "CURSOR AFTER"),
        [
            (
                slice_.sequence,
                slice_.key,
                slice_.estimated_rows,
                None if slice_.cursor_after is None else str(slice_.cursor_after),
            )
            for slice_ in plan.slices[:shown]
        ],
    )
    if len(plan.slices) > shown:
        note(f"{len(plan.slices) - shown} more slices; --all prints them")
    output.facts(
        [
            ("slices", len(plan.slices)),
            ("rows", rows),
            ("strategy", plan.strategy),
            ("cursor", plan.cursor_column),
            ("resumable", plan.resumable),
            *(("note", text) for text in plan.notes),
        ]
    )
