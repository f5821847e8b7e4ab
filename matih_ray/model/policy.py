"""The policy: what a caller may choose for the runs of a unit. Every limit has its reason here."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from pydantic import Field, model_validator

from matih_ray.model.finalize import Finalize
from matih_ray.model.value import JsonValue, Value

# Large enough that a slice's fixed cost (connection, query start, one file) is under a few per
# cent, small enough that losing a worker repeats only seconds of work.
DEFAULT_SLICE_ROWS = 1_000_000
# A plan is stored and shown as one value; more slices than this are merged by the planner.
MAX_SLICES_PER_PLAN = 20_000
MAX_SLICE_ROWS = 1_000_000_000
DEFAULT_COMMIT_INTERVAL_S = 60.0
# One Parquet file; the usual Iceberg recommendation, and readers split inside files anyway.
DEFAULT_FILE_BYTES = 512 * 1024 * 1024


class DataMode(str, Enum):
    """Source-shaped rows, or rows mapped to the canonical data model."""

    RAW = "raw"
    CDM = "cdm"


class RunMode(str, Enum):
    """All rows, rows after the checkpoint's cursor, or the change log."""

    FULL = "full"
    INCREMENTAL = "incremental"
    CDC = "cdc"


class WriteMode(str, Enum):
    """What happens to rows that the table already holds."""

    APPEND = "append"
    OVERWRITE = "overwrite"
    MERGE = "merge"

    @property
    def shows_each_commit(self) -> bool:
        """Readers see each commit at once; an overwrite is shown as a whole, by its last one."""
        return self is not WriteMode.OVERWRITE


class LateCommits(str, Enum):
    """How an incremental run treats transactions that commit below its upper bound later.

    `safe_bound`: choose an upper bound that no open transaction can undercut.
    `lookback`: read again `lookback` below the cursor and drop rows the table already has.
    `ignore`: read up to the greatest visible cursor value.
    """

    SAFE_BOUND = "safe_bound"
    LOOKBACK = "lookback"
    IGNORE = "ignore"


class MergeRule(Value):
    """How rows that arrive meet rows that the table holds: by `key`, no two rows of which agree.

    Of several versions of a key the greatest in column `order` stays, wherever it was before;
    NULL is the least, and of equal ones (or without a column) the last to arrive wins; but equal
    ones of one slice that belong to different partitions have no order. Versions marked in column
    `delete` (true, a number other than 0, any date or time) remove the row.
    """

    key: Annotated[tuple[str, ...], Field(min_length=1)]
    order: str | None = None
    delete: str | None = None


class SchemaChange(str, Enum):
    """What happens when rows arrive with other columns or types than the table has.

    `evolve`: the table changes so that every value has a place: new columns are added, types
    widened as Iceberg allows, required columns made optional; a value of another type goes to a
    column of its own, `<name>__<type>`.
    `freeze`: the table stays; columns that it lacks are left out, types that do not fit refused.
    `discard_value`: like freeze, and values that do not fit their column become NULL.
    `discard_row`: the table stays; rows with a value that has no place in it are left out.
    `fail`: any difference is refused.

    With all but `fail`, columns of the table that the source no longer has are NULL in new rows.

    `evolve` is the default, because it alone loses no value and stops no load: everything it does
    is an addition that readers of the old columns do not notice. `fail` would be as safe and stop
    a tenant's loads at night for a column that nobody reads yet.
    """

    EVOLVE = "evolve"
    FREEZE = "freeze"
    DISCARD_VALUE = "discard_value"
    DISCARD_ROW = "discard_row"
    FAIL = "fail"


class NullCursor(str, Enum):
    """Rows whose cursor is NULL: load them with the first run and refuse when more appear,
    refuse at once, or leave them out knowingly."""

    LOAD = "load"
    REFUSE = "refuse"
    IGNORE = "ignore"


class Verify(str, Enum):
    """What is compared between source, staging and sink for each slice."""

    COUNT = "count"
    CHECKSUM = "checksum"


class IngestionPolicy(Value):
    """A caller's choices. Defaults suit a first full load of a table.

    `lookback` is in seconds for temporal cursors and in cursor units for numeric ones.
    `encodings` overrides the declared encoding of a column (`text`, `decimal(38,9)`).
    `partition_by` uses Iceberg's transforms: `day(created_at)`, `bucket(16, id)`, `region`.
    `key_columns` (by default the unit's primary key), `order_column` (by default the cursor) and
    `delete_column` say how a merge tells rows apart, which version is newer and which are deleted.
    With `finalize` readers see a run's rows all at once, and only if they pass its checks.
    """

    mode: DataMode = DataMode.RAW
    run_mode: RunMode = RunMode.FULL
    write_mode: WriteMode | None = None
    columns: tuple[str, ...] | None = None
    filter: dict[str, JsonValue] | None = None
    cursor_column: str | None = None
    null_cursor: NullCursor = NullCursor.LOAD
    late_commits: LateCommits = LateCommits.SAFE_BOUND
    lookback: Annotated[float, Field(ge=0)] = 0.0
    open_transaction_wait_s: Annotated[float, Field(ge=0, le=3600)] = 30.0
    exact_count: bool = False
    encodings: dict[str, str] = {}
    target_slice_rows: Annotated[int, Field(ge=1, le=MAX_SLICE_ROWS)] = DEFAULT_SLICE_ROWS
    max_parallel_slices: Annotated[int, Field(ge=1, le=1024)] | None = None
    commit_interval_s: Annotated[float, Field(ge=0, le=86_400)] = DEFAULT_COMMIT_INTERVAL_S
    target_file_bytes: Annotated[int, Field(ge=1_000_000)] = DEFAULT_FILE_BYTES
    partition_by: tuple[str, ...] = ()
    key_columns: tuple[str, ...] = ()
    order_column: str | None = None
    delete_column: str | None = None
    target: str | None = None
    schema_change: SchemaChange = SchemaChange.EVOLVE
    finalize: Finalize | None = None
    verify: Verify = Verify.COUNT

    @model_validator(mode="after")
    def _agree(self) -> IngestionPolicy:
        if self.run_mode is RunMode.INCREMENTAL and self.write_mode is WriteMode.OVERWRITE:
            raise ValueError("an incremental run adds to a table and cannot overwrite it")
        if self.run_mode is RunMode.CDC:
            self._fit_a_log()
        named = (*self.key_columns, self.order_column, self.delete_column)
        merging = [name for name in named if name is not None]
        if merging and self.write_mode is not WriteMode.MERGE:
            raise ValueError("keyColumns, orderColumn and deleteColumn need writeMode=merge")
        if self.columns is not None and (left_out := set(merging) - set(self.columns)):
            raise ValueError(f"a merge needs column {min(left_out)!r}, which columns leaves out")
        if len(set(self.key_columns)) < len(self.key_columns):
            raise ValueError("keyColumns names a column twice")
        if self.late_commits is LateCommits.LOOKBACK and self.lookback <= 0:
            raise ValueError("lateCommits=lookback needs a lookback greater than 0")
        if self.schema_change is SchemaChange.DISCARD_ROW and self.verify is Verify.CHECKSUM:
            raise ValueError(
                "verify=checksum needs all rows, and schemaChange=discard_row drops some"
            )
        return self

    def _fit_a_log(self) -> None:
        if self.write_mode is WriteMode.OVERWRITE:
            raise ValueError("runMode=cdc brings changes of a table and cannot overwrite it")
        if self.mode is DataMode.CDM:
            raise ValueError("runMode=cdc loads rows as the source has them; leave mode=cdm out")
        told = (self.cursor_column, self.order_column, self.delete_column)
        if any(name is not None for name in told):
            raise ValueError(
                "with runMode=cdc the log tells what is newer and what is deleted; leave "
                "cursorColumn, orderColumn and deleteColumn out"
            )

    @property
    def effective_write_mode(self) -> WriteMode:
        """The write mode, by default overwrite for full runs and append for all others.

        Rows of the canonical data model replace earlier versions of themselves in either mode, and
        an overwrite also marks as deleted what it does not bring. That has to be asked for: a run
        may be filtered, or find a part of its source closed.
        """
        if self.write_mode is not None:
            return self.write_mode
        if self.mode is DataMode.CDM:
            return WriteMode.APPEND
        return WriteMode.OVERWRITE if self.run_mode is RunMode.FULL else WriteMode.APPEND
