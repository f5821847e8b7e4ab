"""Turns what Ray raises back into our errors: the one place that knows Ray's exceptions."""

from __future__ import annotations

import ray

from matih_ray.errors import MatihError, StagingLostError, WorkerLostError


def unwrap(error: BaseException) -> MatihError:
    """The typed error behind anything that a task, actor call or `ray.get` raised."""
    if isinstance(error, MatihError):
        return error
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        if cause is not None and cause is not error:
            return unwrap(cause)
    if isinstance(error, ray.exceptions.TaskCancelledError):
        return WorkerLostError("the slice task was cancelled", reason="cancelled")
    if isinstance(
        error,
        (
            ray.exceptions.WorkerCrashedError,
            ray.exceptions.RayActorError,
            ray.exceptions.NodeDiedError,
            ray.exceptions.OutOfMemoryError,
            ray.exceptions.LocalRayletDiedError,
        ),
    ):
        return WorkerLostError(
            f"a worker process died: {type(error).__name__}", reason=type(error).__name__
        )
    if isinstance(error, (ray.exceptions.ObjectLostError, ray.exceptions.ObjectStoreFullError)):
        return StagingLostError(
            f"a staged batch is gone: {type(error).__name__}", reason=type(error).__name__
        )
    return MatihError(
        f"unexpected {type(error).__name__}: {error}", exception=type(error).__qualname__
    )
