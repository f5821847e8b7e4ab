"""What runs by a source's log have besides the others: it is opened before planning, and confirmed
when the checkpoint is durable. No vendor appears here, and no Ray."""

from __future__ import annotations

import structlog

from matih_ray.control.ports import Ports
from matih_ray.errors import MatihError
from matih_ray.execution.checkpoints import StoredCheckpoint
from matih_ray.model.checkpoint import Checkpoint
from matih_ray.model.policy import RunMode
from matih_ray.model.run import RunRecord
from matih_ray.model.unit import EndpointUnitDescriptor
from matih_ray.sources.base import SourceEndpoint, SupportsChangeLog

log = structlog.get_logger(__name__)


def opened_log(
    source: SourceEndpoint,
    unit: EndpointUnitDescriptor,
    checkpoint: Checkpoint | None,
    record: RunRecord,
) -> Checkpoint | None:
    """What a run's plan is made from: its checkpoint, or where the log begins if it is new.

    Raises:
        SourceError: The source does not keep its changes.
    """
    if record.policy.run_mode is not RunMode.CDC or not isinstance(source, SupportsChangeLog):
        return checkpoint  # a source without a log says so when it plans
    return source.open_log(unit, checkpoint, record.policy, record.stream.reader())


def confirm_log(ports: Ports, source: SourceEndpoint, record: RunRecord) -> None:
    """Let the source forget what is behind the stored checkpoint.

    If that fails, the next run does it: until then the source keeps more than is needed.
    """
    if record.policy.run_mode is not RunMode.CDC or not isinstance(source, SupportsChangeLog):
        return
    try:
        checkpoint = StoredCheckpoint(ports, record.stream).value
        if checkpoint is not None:
            source.confirm_log(checkpoint)
    except MatihError as error:
        log.warning("log_not_confirmed", code=error.code, detail=error.message)
