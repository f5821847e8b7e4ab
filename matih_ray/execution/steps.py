"""The named steps of a run, reported to a listener.

Production has no listener. Tests configure one (`settings.step_listener`, a dotted name) that ends
the process at a chosen step: crash-and-resume is then a list of steps, not a patch of our code.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from enum import Enum
from functools import lru_cache
from typing import cast

from matih_ray.settings import Settings


class Step(str, Enum):
    """Points at which a process of a run may be lost, in the order of a run."""

    OWNED = "owned"  # planner: the run is ours, nothing planned
    PLANNED = "planned"  # planner: the plan is stored
    READING = "reading"  # slice task: the first batches were yielded
    WRITING = "writing"  # sink actor: the first batch was written
    WRITTEN = "written"  # sink actor: files are closed, the receipt not returned
    COMMITTING = "committing"  # planner: just before the sink commit
    COMMITTED = "committed"  # planner: the sink has committed, the checkpoint is old
    CHECKPOINTED = "checkpointed"  # planner: the checkpoint is new, the run record old
    RECORDED = "recorded"  # planner: the run record is new


StepListener = Callable[[Settings, Step, str, str], None]


def reached(settings: Settings, step: Step, run_id: str, detail: str = "") -> None:
    """Tell the configured listener, if there is one, that a run got here.

    `detail` is the slice's key, or for commits the number of slices committed so far.
    """
    if settings.step_listener is not None:
        _listener(settings.step_listener)(settings, step, run_id, detail)


@lru_cache(maxsize=4)
def _listener(name: str) -> StepListener:
    module, _, attribute = name.partition(":")
    return cast("StepListener", getattr(importlib.import_module(module), attribute))
