"""Following a run to its end: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from matih_ray.api.wire import RunBody
from matih_ray.cli.client import ControlClient
from matih_ray.cli.failures import EXIT_ENVIRONMENT, CliError
from matih_ray.cli.output import clean, note
from matih_ray.model.run import RunState

# One request waits this long for a change; below the API's own limit of 30 s.
LONG_POLL_S = 20.0
# The API may be restarted while a run goes on: it is asked again this often, a second apart.
ASK_AGAIN = 30
ASK_AGAIN_AFTER_S = 1.0


def follow(client: ControlClient, run: RunBody, *, quiet: bool) -> RunBody:
    """Wait until nobody works on the run any more; Ctrl-C leaves it going.

    Args:
        client: Where to ask.
        run: The run as it is known.
        quiet: Standard output belongs to a JSON document; progress is then only shown where it
            cannot get into it, on a terminal's standard error.

    Raises:
        CliError: The API cannot be reached any more; the run is not affected.
    """
    stream = sys.stderr if quiet else sys.stdout
    console = Console(file=stream, highlight=False, markup=False)
    try:
        if console.is_terminal:
            return _with_bar(client, run, console)
        said = ""
        for changed in _changes(client, run):
            run, line = changed, clean(_line(changed))
            if line != said and not quiet:
                stream.write(line + "\n")
                stream.flush()
            said = line
    except KeyboardInterrupt:
        note(
            f"run {run.run_id} goes on. Follow it: matih runs show {run.run_id} --follow; "
            f"end it: matih runs cancel {run.run_id}"
        )
        raise
    return run


def rows_per_second(run: RunBody) -> float | None:
    """Committed rows over the run's own time, once it has ended."""
    if run.started_at is None or run.finished_at is None or not run.rows:
        return None
    seconds = (run.finished_at - run.started_at).total_seconds()
    return run.rows / seconds if seconds > 0 else None


def _changes(client: ControlClient, run: RunBody) -> Iterator[RunBody]:
    """The run as it is, and again at every change until it is not active any more."""
    yield run
    while run.state.is_active:
        changed = _asked(client, run)
        if changed.version != run.version:
            yield changed
        run = changed


def _asked(client: ControlClient, run: RunBody) -> RunBody:
    for attempt in range(ASK_AGAIN):
        try:
            return client.run(run.run_id, LONG_POLL_S, run.version)
        except CliError as error:
            if error.exit_code != EXIT_ENVIRONMENT or attempt == ASK_AGAIN - 1:
                raise CliError(
                    f"{error.message}; run {run.run_id} itself goes on",
                    error.exit_code,
                    error.problem,
                ) from None
        time.sleep(ASK_AGAIN_AFTER_S)
    raise AssertionError  # the last attempt returns or raises


def _with_bar(client: ControlClient, run: RunBody, console: Console) -> RunBody:
    with _bar(console) as progress:
        task = progress.add_task("", total=None, state="", rows="", slices="")
        for changed in _changes(client, run):
            run = changed
            progress.update(
                task,
                total=run.estimated_rows or run.slices_total,
                completed=_completed(run),
                state=run.state.value,
                rows=f"{run.rows:,} rows",
                slices=_slices(run),
            )
    return run


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("{task.fields[state]:<9}"),
        BarColumn(),
        TextColumn("{task.fields[slices]}"),
        TextColumn("{task.fields[rows]}"),
        _Rate("{task.fields[rows]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


class _Rate(TextColumn):
    """Rows a second, over the time that the bar has seen."""

    def render(self, task: Task) -> Text:
        """The rate as text, empty before it is known."""
        speed = task.finished_speed or task.speed
        return Text("" if not speed else f"{speed:,.0f}/s")


def _completed(run: RunBody) -> int:
    if run.state is RunState.COMPLETED:
        return run.estimated_rows or run.slices_total or 0
    return run.rows if run.estimated_rows else run.slices_committed


def _slices(run: RunBody) -> str:
    total = "?" if run.slices_total is None else run.slices_total
    return f"{run.slices_committed}/{total} slices"


def _line(run: RunBody) -> str:
    speed = rows_per_second(run)
    rate = "" if speed is None else f"\t{speed:.0f} rows/s"
    asked = "" if run.requested is None else f"\tasked to {run.requested.value.lower()}"
    return f"{run.state.value}\t{_slices(run)}\t{run.rows} rows{rate}{asked}"
