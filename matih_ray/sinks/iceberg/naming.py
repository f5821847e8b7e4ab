"""Names: what a stream's table, marker property and load branch are called."""

from __future__ import annotations

import hashlib
import re

from matih_ray.errors import ValidationError
from matih_ray.model.checkpoint import StreamKey

# A directory name may have 255 bytes on common filesystems, and SQL catalogs store 255 characters
# for a whole namespace.
MAX_NAME_LENGTH = 200

MARKER_PREFIX = "matih.marker."
RUNS_PREFIX = "matih.runs."
BRANCH_PREFIX = "matih-load-"
AUDIT_PREFIX = "matih-audit-"
# The tag that holds the snapshot to which a rollback goes back, while it does.
ROLLBACK_TAG = "matih-rollback"

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]|_(?=x[0-9A-F]{2})")


def safe_name(name: str) -> str:
    """A name of letters, digits, `_` and `-` only; different names stay different.

    Every other byte of UTF-8 becomes `_xHH`, and so does an underscore that would read as one.

    Raises:
        ValidationError: The name is empty.
    """
    if not name:
        raise ValidationError("a table path has an empty part", field="target")
    safe = _UNSAFE.sub(lambda match: _encoded(match.group()), name)
    if len(safe) <= MAX_NAME_LENGTH:
        return safe
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{safe[: MAX_NAME_LENGTH - 17]}-{digest}"


def table_identifier(path: tuple[str, ...]) -> tuple[str, ...]:
    """Namespace parts and table name of a target's path.

    Raises:
        ValidationError: Less than two parts, or an empty one.
    """
    if len(path) < 2:
        raise ValidationError(
            "a table path needs a namespace and a table name, from the outside in", field="target"
        )
    return tuple(safe_name(part) for part in path)


def stream_digest(stream: StreamKey) -> str:
    """A short stable hash of a stream's whole identity, the tenant included."""
    identity = f"{stream.tenant_id}\0{stream.kv_key()}"
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def marker_property(stream: StreamKey) -> str:
    """The table property that holds the stream's last commit marker."""
    return MARKER_PREFIX + stream_digest(stream)


def runs_property(stream: StreamKey) -> str:
    """The table property that lists the runs of the stream that committed before the last one."""
    return RUNS_PREFIX + stream_digest(stream)


def load_branch(stream: StreamKey) -> str:
    """The branch that holds a stream's overwrite until it is published.

    Named after the stream and not the run: then the branches of two runs of one stream are one
    ref, and the assertion on it tells an old run that a new one has begun.
    """
    return BRANCH_PREFIX + stream_digest(stream)


def audit_branch(stream: StreamKey) -> str:
    """The branch that shows what a finalized run is about to publish, while it is audited."""
    return AUDIT_PREFIX + stream_digest(stream)


def _encoded(text: str) -> str:
    return "".join(f"_x{byte:02X}" for byte in text.encode())
