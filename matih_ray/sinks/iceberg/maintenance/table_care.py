"""One pass over one table: compact, merge manifests, expire snapshots, remove orphans."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pyiceberg.catalog import Catalog
from pyiceberg.manifest import DataFile
from pyiceberg.table import Table

from matih_ray.errors import MatihError, SinkError, ValidationError
from matih_ray.model.maintenance import (
    CompactionReport,
    MaintenancePolicy,
    MaintenanceReport,
    MaintenanceTask,
)
from matih_ray.sinks.base import Workforce
from matih_ray.sinks.iceberg.boundary import mapped
from matih_ray.sinks.iceberg.catalog import CatalogConfig
from matih_ray.sinks.iceberg.data_files import from_payload
from matih_ray.sinks.iceberg.maintenance.compaction import Group, groups_of, within
from matih_ray.sinks.iceberg.maintenance.expiry import expire
from matih_ray.sinks.iceberg.maintenance.orphans import remove_orphans
from matih_ray.sinks.iceberg.maintenance.replacing import (
    Outcome,
    Replacement,
    ReplacingCommit,
    live_files,
)
from matih_ray.sinks.iceberg.maintenance.rewriting import (
    CompactItem,
    CompactResult,
    check_sortable,
)
from matih_ray.sinks.iceberg.merge_work import Layout, Named

# A table's own policy: a JSON object of fields that differ from the common one, or `off`.
POLICY_PROPERTY = "matih.maintenance"
# Bytes that are rewritten between two commits: what a pass that dies has done in vain, some minutes
# of two cores.
ROUND_BYTES = 8 * 1024 * 1024 * 1024


@dataclass
class TableCare:
    """Cares for one table, as far as a policy says.

    Files younger than `protect_since` are no orphans, whatever their age.
    """

    catalog: Catalog
    config: CatalogConfig
    identifier: tuple[str, ...]
    policy: MaintenancePolicy
    workforce: Workforce
    now: datetime
    protect_since: datetime | None = None
    dry_run: bool = False
    _notes: list[str] = field(default_factory=list)

    def run(self) -> MaintenanceReport:
        """Do all tasks of the policy; one that fails ends the pass and is told in the report."""
        started_s = time.monotonic()
        report = MaintenanceReport(table=".".join(self.identifier), dry_run=self.dry_run)
        tasks = self.policy.tasks
        try:
            if MaintenanceTask.COMPACT in tasks or MaintenanceTask.MANIFESTS in tasks:
                report = self._rewrite(report)
            if MaintenanceTask.EXPIRE in tasks:
                report = self._expire(report)
            if MaintenanceTask.ORPHANS in tasks:
                report = self._remove_orphans(report)
        except MatihError as error:
            report = report.model_copy(update={"error": error.message})
        seconds = round(time.monotonic() - started_s, 3)
        return report.model_copy(update={"seconds": seconds, "notes": tuple(self._notes)})

    @property
    def _what(self) -> str:
        return f"maintain table {'.'.join(self.identifier)}"

    def _rewrite(self, report: MaintenanceReport) -> MaintenanceReport:
        with mapped(self._what, self.config):
            table = self.catalog.load_table(self.identifier)
            check_sortable(table.schema(), self.policy.sort_by)
            chosen, left = self._chosen(table)
        compaction = CompactionReport(bytes_left=left)
        if left:
            self._notes.append(f"{left} bytes wait for the next pass: the budget is used up")
        if self.dry_run:
            return report.model_copy(update={"compaction": _planned(compaction, chosen)})
        merge = MaintenanceTask.MANIFESTS in self.policy.tasks
        first: Outcome | None = None
        last = Outcome()
        for groups in _rounds(chosen):
            replacements = self._compacted(table, groups)
            commit = ReplacingCommit(self.catalog, self.config, table, merge_manifests=merge)
            last = commit.run(replacements)
            first = first or last
            compaction = _with_round(compaction, last, groups, replacements)
        if first is None and merge:
            commit = ReplacingCommit(self.catalog, self.config, table, merge_manifests=True)
            first = last = commit.run([])
        return report.model_copy(
            update={
                "compaction": compaction,
                "manifests_before": first.manifests_before if first is not None else 0,
                "manifests_after": last.manifests_after,
            }
        )

    def _chosen(self, table: Table) -> tuple[list[Group], int]:
        if MaintenanceTask.COMPACT not in self.policy.tasks:
            return [], 0
        files: list[DataFile] = [entry.data_file for entry in live_files(table)]
        groups = groups_of(files, self.policy.target_file_bytes, self.policy.min_files)
        return within(groups, self.policy.budget_bytes)

    def _compacted(self, table: Table, groups: Sequence[Group]) -> list[Replacement]:
        """Write the files of some groups again; nothing of it is visible yet."""
        layout = Layout(
            schema_id=table.metadata.current_schema_id, spec_id=table.metadata.default_spec_id
        )
        items = [
            CompactItem(
                identifier=self.identifier,
                table_uuid=str(table.metadata.table_uuid),
                layout=layout,
                files=tuple(Named(path=f.file_path, rows=f.record_count) for f in group.files),
                sort_by=self.policy.sort_by,
                target_file_bytes=self.policy.target_file_bytes,
            )
            for group in groups
        ]
        try:
            results = self.workforce.run([item.to_dict() for item in items])
        except SinkError:
            if self._is_still(table):
                raise
            # a merge, perhaps, and then an expiry took away what was to be read
            self._notes.append("files went while they were being compacted; the next pass goes on")
            return []
        spec, schema = table.specs()[layout.spec_id], table.schemas()[layout.schema_id]
        return [
            Replacement(
                removed=tuple(file.file_path for file in group.files),
                added=tuple(
                    from_payload(dict(payload), spec, schema)
                    for payload in CompactResult.from_json(result).files
                ),
            )
            for group, result in zip(groups, results, strict=True)
        ]

    def _is_still(self, table: Table) -> bool:
        with mapped(self._what, self.config):
            now = self.catalog.load_table(self.identifier).metadata
        return now.current_snapshot_id == table.metadata.current_snapshot_id

    def _expire(self, report: MaintenanceReport) -> MaintenanceReport:
        cutoff = self.now - timedelta(seconds=self.policy.snapshot_age_s)
        expired = expire(
            self.catalog,
            self.config,
            self.identifier,
            self.policy.keep_snapshots,
            int(cutoff.timestamp() * 1000),
            dry_run=self.dry_run,
        )
        return report.model_copy(
            update={"snapshots_expired": expired.snapshots, "expired_files": expired.files}
        )

    def _remove_orphans(self, report: MaintenanceReport) -> MaintenanceReport:
        cutoff = self.now - timedelta(seconds=self.policy.orphan_age_s)
        if self.protect_since is not None:
            cutoff = min(cutoff, self.protect_since)
        orphans = remove_orphans(
            self.catalog, self.config, self.identifier, cutoff, dry_run=self.dry_run
        )
        return report.model_copy(
            update={"orphan_files": orphans.files, "orphan_bytes": orphans.bytes}
        )


def policy_of(table: Table, default: MaintenancePolicy) -> MaintenancePolicy | None:
    """The policy with what the table's own property `matih.maintenance` says instead; None if that
    is `off`.

    Raises:
        ValidationError: The property is neither `off` nor an object of a policy's fields.
    """
    told = table.properties.get(POLICY_PROPERTY, "{}")
    if told == "off":
        return None
    try:
        own = json.loads(told)
    except ValueError:
        own = None
    if not isinstance(own, dict):
        raise ValidationError(
            f"property {POLICY_PROPERTY} of {'.'.join(table.name())} is no JSON object",
            field=POLICY_PROPERTY,
        )
    return MaintenancePolicy.from_json({**default.to_dict(), **own})


def _rounds(groups: Sequence[Group]) -> Iterator[list[Group]]:
    held: list[Group] = []
    size = 0
    for group in groups:
        if held and size + group.bytes > ROUND_BYTES:
            yield held
            held, size = [], 0
        held.append(group)
        size += group.bytes
    if held:
        yield held


def _planned(report: CompactionReport, groups: Sequence[Group]) -> CompactionReport:
    return report.model_copy(
        update={
            "files_before": sum(len(group.files) for group in groups),
            "files_after": len(groups),
            "bytes_read": sum(group.bytes for group in groups),
        }
    )


def _with_round(
    report: CompactionReport,
    outcome: Outcome,
    groups: Sequence[Group],
    replacements: Sequence[Replacement],
) -> CompactionReport:
    added = [file for one in outcome.done for file in one.added]
    written = sum(f.file_size_in_bytes for one in replacements for f in one.added)
    removed = sum(len(one.removed) for one in outcome.done)
    return report.model_copy(
        update={
            "files_before": report.files_before + removed,
            "files_after": report.files_after + len(added),
            "bytes_read": report.bytes_read + sum(group.bytes for group in groups),
            "bytes_written": report.bytes_written + written,
            "groups_lost": report.groups_lost + len(outcome.lost),
        }
    )
