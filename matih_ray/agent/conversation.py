"""A conversation as a value: where it stands and what is known so far. Never holds a secret."""

from __future__ import annotations

from enum import Enum

from matih_ray.model.ids import EndpointId, RunId, SinkId, UnitId
from matih_ray.model.policy import RunMode
from matih_ray.model.schedule import Timing
from matih_ray.model.value import Value


class State(str, Enum):
    """Where a conversation stands (seed 000)."""

    WELCOME = "welcome"  # nothing is under way
    SELECT_SOURCE_TYPE = "select_source_type"
    GATHER_CREDENTIALS = "gather_credentials"
    TEST_CONNECTION = "test_connection"
    DISCOVER_SCHEMA = "discover_schema"
    SELECT_STREAMS = "select_streams"
    CONFIGURE_SYNC = "configure_sync"
    REVIEW = "review"
    EXECUTE = "execute"


class SyncChoice(Value):
    """How one stream is loaded; `cursor_column` is there for incremental loads alone.

    With `merge_key` rows that changed replace those with the same key, without they are added.
    """

    run_mode: RunMode = RunMode.FULL
    cursor_column: str | None = None
    merge_key: tuple[str, ...] = ()


class Stream(Value):
    """One unit that was discovered, as far as a choice needs it.

    `columns` may drive a cursor; `key` is the primary key, if it has one.
    """

    unit_id: UnitId
    name: str
    rows: int | None = None
    bytes: int | None = None
    columns: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    suggested: SyncChoice = SyncChoice()
    reason: str = ""


class Outcome(Value):
    """What became of one stream. `problem` says why there is no run or no schedule, `link` is where
    the run can be followed."""

    unit_id: UnitId
    run_id: RunId | None = None
    link: str | None = None
    schedule_id: str | None = None
    problem: str | None = None


class Destination(Value):
    """A sink that rows can go to."""

    sink_id: SinkId
    name: str


class Conversation(Value):
    """Everything that is known. `given_secrets` are names, not values.

    `attempt` tells connectors of one session apart. `is_connected` says that the connector which is
    stored has the fields as they stand here. `unlisted` counts streams beyond those kept here. Rows
    go to `sink`, one of `sinks`; to Iceberg if none was chosen.
    """

    state: State = State.WELCOME
    type: str | None = None
    fields: dict[str, str] = {}
    given_secrets: tuple[str, ...] = ()
    asked: str | None = None
    attempt: int = 0
    connector_id: EndpointId | None = None
    connector_name: str | None = None
    is_connected: bool = False
    keeps_changes: bool = False
    streams: tuple[Stream, ...] = ()
    unlisted: int = 0
    chosen: tuple[UnitId, ...] = ()
    choices: dict[UnitId, SyncChoice] = {}
    timing: Timing | None = None
    sinks: tuple[Destination, ...] = ()
    sink: Destination | None = None
    outcomes: tuple[Outcome, ...] = ()

    def choice(self, stream: Stream) -> SyncChoice:
        """How a stream is loaded: as the user said, or as suggested."""
        return self.choices.get(stream.unit_id, stream.suggested)

    def chosen_streams(self) -> tuple[Stream, ...]:
        """The chosen streams, in the order they are listed."""
        chosen = set(self.chosen)
        return tuple(stream for stream in self.streams if stream.unit_id in chosen)
