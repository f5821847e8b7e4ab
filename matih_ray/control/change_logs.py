"""What sources keep for runs by their logs, let go when nobody will ask for it."""

from __future__ import annotations

from collections.abc import Collection

import structlog

from matih_ray.control.ports import Ports
from matih_ray.errors import MatihError
from matih_ray.model.checkpoint import StreamKey
from matih_ray.model.policy import RunMode
from matih_ray.model.run import RunRecord
from matih_ray.sources.base import SourceEndpoint, SupportsChangeLog
from matih_ray.state.base import UnitStateRecord

log = structlog.get_logger(__name__)


def read_by_log(runs: Collection[RunRecord]) -> bool:
    """Whether any of these runs went by its source's log."""
    return any(run.policy.run_mode is RunMode.CDC for run in runs)


def last_by_log(ports: Ports, states: Collection[UnitStateRecord]) -> list[StreamKey]:
    """The streams whose last run went by its source's log."""
    found = []
    for state in states:
        try:
            run = ports.metadata.get_run(state.stream.tenant_id, state.last_run_id)
        except MatihError:
            continue  # its record is gone, and with it who read what
        if read_by_log([run]):
            found.append(state.stream)
    return found


def drop_logs(source: SourceEndpoint, streams: Collection[StreamKey]) -> None:
    """Let a source keep nothing for these streams any more, as far as it can be told.

    A source that cannot be reached must not keep anybody from forgetting it; the log of this
    process names what is left for a person to drop.
    """
    if not isinstance(source, SupportsChangeLog):
        return
    for stream in streams:
        try:
            source.drop_log(stream.unit_id, stream.reader())
        except MatihError as error:
            log.warning(
                "change_log_not_dropped",
                unit=stream.unit_id,
                reader=stream.reader(),
                code=error.code,
                detail=error.message,
            )
