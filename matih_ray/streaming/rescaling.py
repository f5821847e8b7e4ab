"""States of many tasks as those of one, and back: what a checkpoint holds never depends on how many
tasks a job has, so that a job may go on with another number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from matih_ray.model.value import JsonValue
from matih_ray.streaming.backends.runs import SESSIONS_IN_SLOT, SUBPARTS
from matih_ray.streaming.connectors.shares import Share
from matih_ray.streaming.key_groups import KEY_GROUPS, key_groups, owners
from matih_ray.streaming.operators import MERGED, SESSIONS, State
from matih_ray.streaming.watermarks import BEGINNING
from matih_ray.streaming.windows import WINDOW

# The columns of each table that are numbers of sessions.
_NUMBERS = {SESSIONS: ("number",), MERGED: ("number", "into")}


def merged_sources(states: Sequence[Mapping[str, State]]) -> dict[str, State]:
    """The states of all source tasks as those of one that reads everything.

    What each source has reached is the lowest of them: windows that have fired stay closed by the
    windows' own watermark, and nothing else may become late.
    """
    merged = {}
    for name in states[0]:
        parts = [state[name].value for state in states]
        if name.startswith("union-"):
            marks = [[int(str(mark)) for mark in _list(part)] for part in parts]
            merged[name] = State(value=[min(column) for column in zip(*marks, strict=True)])
        else:
            merged[name] = State(value=_merged_source([_dict(part) for part in parts]))
    return merged


def _merged_source(parts: list[dict[str, JsonValue]]) -> JsonValue:
    positions: dict[str, JsonValue] = {}
    marks: dict[str, JsonValue] = {}
    reached = []
    for part in parts:
        positions |= _dict(part["positions"])
        marks |= _dict(part["watermarks"])
        if part["watermarks"]:
            reached.append(int(str(part["reached"])))
    return {
        "table": parts[0]["table"],
        "positions": positions,
        "watermarks": marks,
        "reached": min(reached, default=BEGINNING),
    }


def merged_windows(states: Sequence[State]) -> State:
    """The states of all window tasks as that of one that has all keys; sessions get new numbers."""
    tables: dict[str, list[pa.Table]] = {}
    values = [_dict(state.value) for state in states]
    runs = []
    first = 0
    for index, (state, value) in enumerate(zip(states, values, strict=True)):
        has_sessions = SESSIONS in state.tables
        for name, table in state.tables.items():
            columns = _NUMBERS.get(name, (WINDOW,)) if has_sessions else ()
            tables.setdefault(name, []).append(_moved(table, columns, first))
        mine = _parts(Share(index, len(states)))
        runs += [run.shared(*mine, shift=first) for run in state.runs]
        # whole slots further, so that slots of runs stay slots
        slots = -(-int(str(value.get("next_session", 0))) // SESSIONS_IN_SLOT)
        first += slots * SESSIONS_IN_SLOT
    value = {"watermark": max(int(str(one["watermark"])) for one in values)}
    if "next_session" in values[0]:
        value["next_session"] = first
    whole = {name: pa.concat_tables(parts) for name, parts in tables.items()}
    return State(whole, {**value}, tuple(runs))


def window_share(state: State, keys: Sequence[str], share: Share) -> State:
    """What one of several window tasks has of the state of all: its key groups."""
    tables = {}
    for name, table in state.tables.items():
        if name == MERGED:  # whose sessions have no key here; each takes what it knows of
            tables[name] = table
            continue
        # the sessions' key columns are the first ones, under names of their own
        columns = table.column_names[: len(keys)] if name == SESSIONS else keys
        mine = owners(key_groups(table, columns), share.count) == share.index
        kept = table.filter(pa.array(mine))
        if kept.num_rows or name == SESSIONS:
            tables[name] = kept
    runs = [run.shared(*_parts(share)) for run in state.runs]
    return State(tables, state.value, tuple(run for run in runs if run.batches))


def _parts(share: Share) -> tuple[int, int]:
    """The parts of runs that one of several window tasks has: see `key_groups.owners`."""
    groups = [-(-KEY_GROUPS * at // share.count) for at in (share.index, share.index + 1)]
    return groups[0] * SUBPARTS, groups[1] * SUBPARTS


def _moved(table: pa.Table, columns: Sequence[str], by: int) -> pa.Table:
    for column in columns:
        place = table.column_names.index(column)
        numbers = table.column(column).to_numpy() + np.int64(by)
        table = table.set_column(place, column, pa.array(numbers, pa.int64()))
    return table


def _dict(value: JsonValue) -> dict[str, JsonValue]:
    assert isinstance(value, dict)  # noqa: S101 - written by snapshots
    return value


def _list(value: JsonValue) -> list[JsonValue]:
    assert isinstance(value, list)  # noqa: S101 - as above
    return value
