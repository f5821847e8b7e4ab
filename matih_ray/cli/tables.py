"""`matih tables`: look at tables and their past, in this process."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from matih_ray.cli.failures import EXIT_CALLER, EXIT_ENVIRONMENT, EXIT_NO, CliError
from matih_ray.cli.options import DEFAULT_SINK, JsonOption, SinkOption
from matih_ray.cli.output import Output, note

if TYPE_CHECKING:
    from matih_ray.control.authorization import Principal
    from matih_ray.control.ports import Ports

app = typer.Typer(
    help="Look at tables and their snapshots. Reads the settings of the runtime and goes to its "
    "catalog directly.",
    no_args_is_help=True,
)

TableArgument = Annotated[str, typer.Argument(metavar="TABLE", help="Table, without the tenant.")]
TenantOption = Annotated[str, typer.Option("--tenant", help="Tenant whose tables they are.")]


@app.command("list")
def list_(
    *,
    tenant: TenantOption = "default",
    sink: SinkOption = DEFAULT_SINK,
    as_json: JsonOption = False,
) -> None:
    """List the tables of a tenant."""
    from matih_ray.control.tables import list_tables
    from matih_ray.model.ids import SinkId

    with _local(tenant) as (principal, ports):
        found = list_tables(principal, ports, principal.tenant_id, SinkId(sink))
    output = Output(as_json=as_json)
    if as_json:
        output.document([*found])
    else:
        output.table(("TABLE",), [(name,) for name in found])


@app.command("snapshots")
def snapshots(
    table: TableArgument,
    *,
    tenant: TenantOption = "default",
    sink: SinkOption = DEFAULT_SINK,
    as_json: JsonOption = False,
) -> None:
    """List the snapshots of a table, newest first: what time travel can reach."""
    from matih_ray.control.tables import list_snapshots
    from matih_ray.model.ids import SinkId

    with _local(tenant) as (principal, ports):
        found = list_snapshots(principal, ports, principal.tenant_id, table, SinkId(sink))
    output = Output(as_json=as_json)
    if as_json:
        output.document([one.to_dict() for one in found])
        return
    output.table(
        ("SNAPSHOT", "AT", "OPERATION", "ROWS", "ADDED", "FILES", "RUN", "SHOWN AS"),
        [
            (one.snapshot_id, one.at, one.operation, one.rows, one.rows_added, one.files,
             one.run_id, " ".join(one.refs) or None)
            for one in found
        ],
    )  # fmt: skip


@app.command("partition")
def partition(
    table: TableArgument,
    by: Annotated[
        list[str] | None,
        typer.Option("--by", help="Transform, such as 'day(at)'; repeatable [default: none]."),
    ] = None,
    *,
    tenant: TenantOption = "default",
    sink: SinkOption = DEFAULT_SINK,
) -> None:
    """Partition new files of a table in another way; files that are there stay as they are."""
    from matih_ray.control.tables import repartition_table
    from matih_ray.model.ids import SinkId

    with _local(tenant) as (principal, ports):
        repartition_table(principal, ports, principal.tenant_id, table, by or [], SinkId(sink))
    note(f"{table} is partitioned by {', '.join(by or []) or 'nothing'} from now on")


@app.command("rename-column")
def rename_column(
    table: TableArgument,
    column: Annotated[str, typer.Argument(metavar="COLUMN", help="Its name in the table.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name from now on.")],
    *,
    tenant: TenantOption = "default",
    sink: SinkOption = DEFAULT_SINK,
) -> None:
    """Rename a column, as its source has: old and new rows are then in one column."""
    from matih_ray.control.tables import rename_table_column
    from matih_ray.model.ids import SinkId

    with _local(tenant) as (principal, ports):
        rename_table_column(
            principal, ports, principal.tenant_id, table, column, name, SinkId(sink)
        )
    note(f"column {column} of {table} is called {name} now")


@contextmanager
def _local(tenant: str) -> Iterator[tuple[Principal, Ports]]:
    """This process's own stores, with errors as the command line tells them."""
    # not at the top: most commands need none of it, and it loads the runtime's own packages
    from matih_ray.control.authorization import Principal, Role
    from matih_ray.control.local import local_ports
    from matih_ray.errors import ConfigurationError, MatihError, RequestError, SinkUnavailableError
    from matih_ray.model.ids import TenantId
    from matih_ray.settings import Settings

    operator = Principal(getpass.getuser(), TenantId(tenant), frozenset({Role.DATA_ENGINEER}))
    try:
        yield operator, local_ports(Settings())
    except MatihError as error:
        is_environment = isinstance(error, ConfigurationError | SinkUnavailableError)
        is_caller = isinstance(error, RequestError)
        code = EXIT_ENVIRONMENT if is_environment else EXIT_CALLER if is_caller else EXIT_NO
        raise CliError(f"{error.message} [{error.code}]", code) from None
