"""`matih jobs …` and `matih savepoint`: streaming jobs on a cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from matih_ray.cli.failures import EXIT_CALLER, EXIT_NO, CliError
from matih_ray.cli.options import JsonOption, client_of
from matih_ray.cli.output import Output, note
from matih_ray.model.stream_job import SavepointState, StreamJob
from matih_ray.model.value import JsonValue

app = typer.Typer(no_args_is_help=True, help="Streaming jobs.", rich_markup_mode=None)

# Between two looks at a savepoint that is being made.
LOOK_S = 0.5

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of a job.")]
DirectoryOption = Annotated[
    str | None, typer.Option("--directory", help="Where it goes; the operator's if not given.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout-s", min=1, help="How long to wait for the savepoint.")
]


@app.command("submit")
def submit(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="Script of Flink SQL statements.")],
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the job; the file's if not given.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="TABLE.KEY=VALUE", help="Override a table's option."),
    ] = None,
    checkpoint_interval_s: Annotated[
        float, typer.Option("--checkpoint-interval-s", min=1, help="Seconds between commits.")
    ] = 60.0,
    parallelism: Annotated[
        int, typer.Option("--parallelism", min=1, help="Processes that share the work of a job.")
    ] = 1,
    savepoint: Annotated[
        str | None, typer.Option("--from-savepoint", help="Path of a savepoint to begin from.")
    ] = None,
    allow_other_query: Annotated[
        bool, typer.Option("--allow-other-query", help="Though the savepoint is of another one.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start a job for each INSERT of a script."""
    options: dict[str, JsonValue] = {}
    for text in option or []:
        key, separator, value = text.partition("=")
        if not separator or "." not in key:
            raise typer.BadParameter("write TABLE.KEY=VALUE", param_hint="--option")
        options[key] = value
    try:
        script = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"cannot read {file}: {error}", EXIT_CALLER) from None
    draft: dict[str, JsonValue] = {
        "name": name or file.stem,
        "script": script,
        "options": options,
        "checkpointIntervalS": checkpoint_interval_s,
        "parallelism": parallelism,
        "savepointPath": savepoint,
        "allowOtherQuery": allow_other_query,
    }
    jobs = client_of(context).submit_jobs(draft)
    output = Output(as_json=as_json)
    if as_json:
        output.document([job.to_dict() for job in jobs])
        return
    for job in jobs:
        output.line(f"job {job.job_id} {job.name} into {job.target}")


@app.command("list")
def list_(context: typer.Context, *, as_json: JsonOption = False) -> None:
    """List jobs, newest first."""
    found = list(client_of(context).jobs())
    output = Output(as_json=as_json)
    if output.as_json:
        output.document([job.to_dict() for job in found])
        return
    output.table(
        ("JOB", "NAME", "STATE", "IN", "OUT", "LATE", "BAD", "RESTARTS", "WATERMARK"),
        [
            (
                job.job_id,
                job.name,
                job.state.value,
                job.progress.rows_in,
                job.progress.rows_out,
                job.progress.late_rows,
                job.progress.bad_rows,
                job.restarts,
                job.progress.watermark,
            )
            for job in found
        ],
    )


@app.command("show")
def show(context: typer.Context, job: JobArgument, *, as_json: JsonOption = False) -> None:
    """Show a job: its state, its progress, and which partition its windows wait for."""
    _show(client_of(context).job(job), Output(as_json=as_json))


@app.command("cancel")
def cancel(context: typer.Context, job: JobArgument, *, as_json: JsonOption = False) -> None:
    """End a job without another checkpoint; what it has committed stays."""
    _show(client_of(context).tell_job(job, "cancel", None), Output(as_json=as_json))


@app.command("stop")
def stop(
    context: typer.Context,
    job: JobArgument,
    *,
    directory: DirectoryOption = None,
    timeout_s: TimeoutOption = 120.0,
) -> None:
    """Stop a job with a savepoint, and print its path."""
    _save(context, job, "stop", directory, timeout_s)


def savepoint(
    context: typer.Context,
    job: JobArgument,
    *,
    directory: DirectoryOption = None,
    timeout_s: TimeoutOption = 120.0,
) -> None:
    """Save a job's state while it goes on, and print the savepoint's path."""
    _save(context, job, "savepoints", directory, timeout_s)


def _save(
    context: typer.Context, job_id: str, what: str, directory: str | None, timeout_s: float
) -> None:
    client = client_of(context)
    asked = client.tell_job(job_id, what, {"directory": directory}).savepoints[-1]
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        listed = client.job(job_id).savepoints
        found = next((one for one in listed if one.savepoint_id == asked.savepoint_id), None)
        if found is not None and found.state is not SavepointState.IN_PROGRESS:
            if found.path is None:
                raise CliError(f"no savepoint: {found.error}", EXIT_NO)
            Output(as_json=False).line(found.path)
            return
        time.sleep(LOOK_S)
    raise CliError(f"no savepoint within {timeout_s:g} s; `matih jobs show {job_id}`", EXIT_NO)


def _show(job: StreamJob, output: Output) -> None:
    if output.as_json:
        output.document(job)
        return
    progress = job.progress
    output.line(f"job {job.job_id} {job.name} into {job.target}: {job.state.value}")
    output.line(
        f"{progress.rows_in:,} rows in, {progress.rows_out:,} out, {progress.late_rows:,} late, "
        f"{progress.bad_rows:,} unreadable, {progress.changed_rows:,} changed, "
        f"{progress.rejected_rows:,} in the side table; "
        f"{progress.checkpoints} checkpoints, the last took "
        f"{progress.checkpoint_s:g} s; state {progress.state_bytes:,} bytes, now "
        f"{progress.state_memory_bytes:,} in memory and {progress.state_disk_bytes:,} in files"
    )
    if progress.watermark is not None:
        output.line(f"watermark {progress.watermark}, held by {progress.watermark_holder}")
    elif progress.watermark_holder is not None and job.state.is_active:
        output.line(f"no watermark yet: {progress.watermark_holder} has had no rows")
    if progress.slot_lag_bytes is not None:
        output.line(f"the database keeps {progress.slot_lag_bytes:,} bytes of its log for the job")
    for one in job.savepoints:
        output.line(f"savepoint {one.state.value}: {one.path or one.error or one.directory}")
    if job.error is not None:
        note(f"{job.error.code}: {job.error.message}")
