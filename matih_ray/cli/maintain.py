"""`matih maintain`: care for tables, in this process."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

import typer

from matih_ray.cli.failures import EXIT_CALLER, EXIT_ENVIRONMENT, EXIT_NO, CliError
from matih_ray.cli.options import DEFAULT_SINK, JsonOption, PolicyOption, SinkOption, pairs
from matih_ray.cli.output import Output, note

if TYPE_CHECKING:
    from collections.abc import Iterable

    from matih_ray.model.maintenance import MaintenanceReport


def maintain(
    tables: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE]...", help="Tables, without the tenant [default: all]."),
    ] = None,
    *,
    tenant: Annotated[str, typer.Option(help="Tenant whose tables they are.")] = "default",
    sink: SinkOption = DEFAULT_SINK,
    policy: PolicyOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be done and change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compact small files, expire snapshots and remove orphans, in this process.

    Reads the settings of the runtime (MATIH_HOME and the like) and goes to its catalog directly.
    Exit code 1 if a table could not be maintained.
    """
    # not at the top: no other command needs them, and they load the runtime's own packages
    from matih_ray.control.authorization import Principal, Role
    from matih_ray.control.local import local_ports
    from matih_ray.control.maintenance import maintain_tables, standing_policy
    from matih_ray.errors import ConfigurationError, MatihError, RequestError, SinkUnavailableError
    from matih_ray.model.ids import SinkId, TenantId
    from matih_ray.model.maintenance import MaintenancePolicy
    from matih_ray.settings import Settings

    output = Output(as_json=as_json)
    operator = Principal(getpass.getuser(), TenantId(tenant), frozenset({Role.DATA_ENGINEER}))
    try:
        settings = Settings()
        standing = standing_policy(settings).to_dict()
        chosen = MaintenancePolicy.from_json({**standing, **pairs(policy, "--policy")})
        reports = maintain_tables(
            operator,
            local_ports(settings),
            TenantId(tenant),
            SinkId(sink),
            chosen,
            tables=tables or [],
            dry_run=dry_run,
        )
        fine = _print(output, reports)
    except MatihError as error:
        is_environment = isinstance(error, ConfigurationError | SinkUnavailableError)
        is_caller = isinstance(error, RequestError)
        code = EXIT_ENVIRONMENT if is_environment else EXIT_CALLER if is_caller else EXIT_NO
        raise CliError(f"{error.message} [{error.code}]", code) from None
    if not fine:
        raise typer.Exit(EXIT_NO)


def _print(output: Output, reports: Iterable[MaintenanceReport]) -> bool:
    """Print reports when they are there, JSON as one document at the end."""
    done: list[MaintenanceReport] = []
    for report in reports:
        done.append(report)
        if output.as_json:
            continue
        for text in (*report.notes, *([report.error] if report.error else [])):
            note(f"{report.table}: {text}")
    if output.as_json:
        output.document([report.to_dict() for report in done])
    else:
        output.table(
            ("TABLE", "FILES", "NOW", "READ", "WRITTEN", "MANIFESTS", "EXPIRED", "ORPHANS", "S"),
            [_row(report) for report in done],
        )
    return all(report.error is None for report in done)


def _row(report: MaintenanceReport) -> tuple[str | int, ...]:
    done = report.compaction
    return (
        report.table,
        done.files_before,
        done.files_after,
        done.bytes_read,
        done.bytes_written,
        f"{report.manifests_before}-{report.manifests_after}",
        report.snapshots_expired,
        report.orphan_files,
        f"{report.seconds:.1f}",
    )
