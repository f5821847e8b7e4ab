"""The one error hierarchy: what went wrong, where, and what to do about it.

Every error is `(message, context)`. Class constants carry the two decisions that callers need:
`code`, a stable word for people and programs, and `recovery`, what the failure policy should do.
Foreign exceptions are mapped once, where the foreign library is called.

Why not dataclass exceptions or keyword arguments: an exception crosses Ray by pickling, and there
dataclass fields with defaults come back empty and required keyword arguments come back as
`UnserializableException`. A message and a plain mapping with an explicit `__reduce__` survive.
Context values are shown to people and written to logs, so secrets must never be put there.

    MatihError
    ├── ConfigurationError          settings, plugins, missing extras
    ├── RequestError                the caller's fault: validation, not found, conflict, refused
    ├── SourceError                 unavailable (try again), rejected (fix the connector), data
    ├── PlanError                   no valid plan can be made
    ├── StagingError                staged batches were lost or do not fit
    ├── MappingError                a raw record has no CDM form
    ├── SinkError                   commit rejected, commit unknown, fenced, schema, storage
    └── StateError                  compare-and-set conflicts, stored data of another version
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, ClassVar


class Recovery(str, Enum):
    """What the failure policy does with an error of this class."""

    RETRY = "retry"  # the same slice again, within its cause's budget
    PAUSE = "pause"  # wait (context `retry_after_s` if known), then retry
    REPLAN = "replan"  # inputs changed; make a new plan
    RECONCILE = "reconcile"  # the outcome is unknown; ask the sink for our marker
    SKIP = "skip"  # this record or part cannot be loaded; report it and go on
    ABORT = "abort"  # trying again cannot help


ContextValue = str | int | float | bool | None


class MatihError(Exception):
    """Root of all errors of this package.

    Args:
        message: One or two sentences for a person: what, where, and the remedy.
        **context: Facts for programs; scalars only, never secrets.
    """

    code: ClassVar[str] = "INTERNAL"
    recovery: ClassVar[Recovery] = Recovery.ABORT

    def __init__(self, message: str, **context: ContextValue) -> None:
        super().__init__(message)
        self.message = message
        self.context: Mapping[str, ContextValue] = dict(context)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, dict(self.context)))

    def __str__(self) -> str:
        return self.message


def _rebuild(kind: type[MatihError], message: str, context: dict[str, ContextValue]) -> MatihError:
    return kind(message, **context)


# --- configuration ---------------------------------------------------------------------------


class ConfigurationError(MatihError):
    """A setting or a plugin is wrong; an operator must change it."""

    code = "CONFIGURATION_INVALID"


class MissingExtraError(ConfigurationError):
    """An optional driver is not installed; context names the `extra` to install."""

    code = "MISSING_EXTRA"


class UnknownPluginError(ConfigurationError):
    """No connector type, sink, staging provider or mapper of that name is registered."""

    code = "UNKNOWN_PLUGIN"


# --- requests --------------------------------------------------------------------------------


class RequestError(MatihError):
    """The request cannot be served as it stands; the caller must change it."""

    code = "BAD_REQUEST"


class ValidationError(RequestError):
    """A field has a value that is not allowed; context names the `field`."""

    code = "VALIDATION_FAILED"


class CdmModelMissingError(ValidationError):
    """Mode `cdm` for a unit that has no canonical data model."""

    code = "CDM_MODEL_MISSING"


class CdmModelUnsupportedError(ValidationError):
    """Mode `cdm` into a sink that does not take the unit's model; context names both."""

    code = "CDM_MODEL_UNSUPPORTED"


class CdmSinkRequiredError(ValidationError):
    """Mode `cdm` without a sink endpoint that says where the model's tables are."""

    code = "CDM_SINK_REQUIRED"


class MethodNotAllowedError(RequestError):
    """The path exists and does not know this HTTP method."""

    code = "METHOD_NOT_ALLOWED"


class RequestTooLargeError(RequestError):
    """The request's body is larger than any valid one."""

    code = "REQUEST_TOO_LARGE"


class NotFoundError(RequestError):
    """No such tenant resource."""

    code = "NOT_FOUND"


class UnknownUnitError(NotFoundError):
    """The unit is not in the endpoint's catalog."""

    code = "UNKNOWN_UNIT"


class ConflictError(RequestError):
    """The resource is in a state that does not allow this."""

    code = "CONFLICT"


class UnitDisabledError(ConflictError):
    """The unit is configured not to be loaded."""

    code = "UNIT_DISABLED"


class CdmSinkNotProvisionedError(ConflictError):
    """The sink endpoint has no table for the model yet; context names both."""

    code = "CDM_SINK_NOT_PROVISIONED"


class RunOverlapError(ConflictError):
    """Another run of the same (endpoint, unit, sink) is not finished; context names it."""

    code = "RUN_OVERLAP"


class ConnectorTestError(RequestError):
    """The connector was not saved, because its test failed; context names its `errorCode`."""

    code = "CONNECTOR_TEST_FAILED"


class UnauthenticatedError(RequestError):
    """No valid token was presented."""

    code = "UNAUTHENTICATED"


class IdentityProviderUnavailableError(MatihError):
    """The keys that tokens are verified with cannot be fetched now."""

    code = "IDENTITY_PROVIDER_UNAVAILABLE"
    recovery = Recovery.RETRY


class ForbiddenError(RequestError):
    """The token does not allow this action on this tenant."""

    code = "FORBIDDEN"


class PlanLimitError(ForbiddenError):
    """The tenant's plan does not allow another connector, or this type; context names the plan."""

    code = "PLAN_LIMIT"


class HostNotAllowedError(ForbiddenError):
    """The operator does not allow sources at this address; context names the `host`."""

    code = "HOST_NOT_ALLOWED"


class SessionsFullError(MatihError):
    """This replica has as many conversations open as it takes."""

    code = "SESSIONS_FULL"
    recovery = Recovery.PAUSE


class SqlInvalidError(RequestError):
    """A statement is no Flink SQL, or names what does not exist."""

    code = "SQL_INVALID"


class SqlNotSupportedError(RequestError):
    """A statement is Flink SQL that is not supported; context names the `clause`."""

    code = "SQL_NOT_SUPPORTED"


class QueryLimitError(RequestError):
    """A query's result is too large, or takes too long; context names the `limit`."""

    code = "QUERY_LIMIT"


# --- sources ---------------------------------------------------------------------------------


class SourceError(MatihError):
    """Reading from a source failed."""

    code = "SOURCE_FAILED"


class SourceUnavailableError(SourceError):
    """The source cannot be reached now; trying again may help."""

    code = "SOURCE_UNAVAILABLE"
    recovery = Recovery.RETRY


class ConnectionRefusedByHostError(SourceUnavailableError):
    """Host unreachable or port closed."""

    code = "CONNECTION_REFUSED"


class DnsResolutionError(SourceUnavailableError):
    """The host name could not be resolved."""

    code = "DNS_RESOLUTION_FAILED"


class SourceTimeoutError(SourceUnavailableError):
    """The source did not answer in time."""

    code = "TIMEOUT"


class QuotaSpentError(SourceUnavailableError):
    """The provider's quota is used up; `retry_after_s` says when it is there again."""

    code = "QUOTA_SPENT"
    recovery = Recovery.PAUSE


class SourceRejectedError(SourceError):
    """The source refuses; a person must change the connector or the source."""

    code = "SOURCE_REJECTED"


class AuthenticationFailedError(SourceRejectedError):
    """Invalid credentials."""

    code = "AUTHENTICATION_FAILED"


class TlsHandshakeError(SourceRejectedError):
    """TLS could not be agreed or the certificate is not trusted."""

    code = "SSL_HANDSHAKE_FAILED"


class DatabaseNotFoundError(SourceRejectedError):
    """The named database does not exist."""

    code = "DATABASE_NOT_FOUND"


class SourcePermissionError(SourceRejectedError):
    """The source's credentials lack a required permission (our own refusal is `ForbiddenError`)."""

    code = "PERMISSION_DENIED"


class SourceChangedError(SourceError):
    """The unit is not what was planned: table or column dropped, or a type changed."""

    code = "SOURCE_CHANGED"


class PartUnreadableError(SourceError):
    """One part of a unit (a project, a space) cannot be read; context names the `part`. The others
    are loaded, this one is reported, and its place in the checkpoint stays."""

    code = "PART_UNREADABLE"
    recovery = Recovery.SKIP


class UnrepresentableValueError(SourceError):
    """A value has no exact form in the declared type; context names the `column` and the remedy."""

    code = "UNREPRESENTABLE_VALUE"


class OpenTransactionError(SourceUnavailableError):
    """A transaction stays open that could still commit rows below the upper bound."""

    code = "OPEN_TRANSACTION"


class NullCursorError(SourceError):
    """Rows without a cursor value exist and the policy does not say what to do with them."""

    code = "NULL_CURSOR"


class ReplicationNotReadyError(SourceRejectedError):
    """The database cannot hand out its changes as it is set up; the message says what to do."""

    code = "REPLICATION_NOT_READY"


class ChangesLostError(SourceError):
    """Changes behind a position are not kept any more: what was missed can be read anew only."""

    code = "CHANGES_LOST"


class SlotLagError(SourceError):
    """A replication slot holds back more of the write-ahead log than was allowed."""

    code = "SLOT_LAG"


class StreamRowError(SourceError):
    """A row stopped a streaming job: it cannot be read, or an expression fails on it."""

    code = "STREAM_ROW"


# --- planning, staging, mapping --------------------------------------------------------------


class PlanError(MatihError):
    """No valid plan can be made for this unit and policy."""

    code = "PLAN_INVALID"


class StagingError(MatihError):
    """Staged batches could not be written or read back."""

    code = "STAGING_FAILED"
    recovery = Recovery.RETRY


class StagingLostError(StagingError):
    """Staged batches are gone (their owner or node died); the slice must be read again."""

    code = "STAGING_LOST"


class WorkerLostError(StagingError):
    """The process that worked on a slice died."""

    code = "WORKER_LOST"


class CountMismatchError(StagingError):
    """Rows read, staged and written of one slice do not agree."""

    code = "COUNT_MISMATCH"


class MappingError(MatihError):
    """A raw record cannot be mapped to the CDM."""

    code = "MAPPING_FAILED"
    recovery = Recovery.SKIP


# --- sinks -----------------------------------------------------------------------------------


class SinkError(MatihError):
    """Writing to a sink failed."""

    code = "SINK_FAILED"


class SinkUnavailableError(SinkError):
    """The catalog, database or storage of a sink cannot be reached now."""

    code = "SINK_UNAVAILABLE"
    recovery = Recovery.RETRY


class StorageFullError(SinkError):
    """The warehouse has no space left."""

    code = "STORAGE_FULL"


class SchemaMismatchError(SinkError):
    """The table exists with columns that the incoming schema does not fit."""

    code = "SCHEMA_MISMATCH"


class NullKeyError(SinkError):
    """A row to merge has NULL in a column of its key."""

    code = "NULL_KEY"


class AuditFailedError(SinkError):
    """A run's rows are in the sink, unseen, and do not meet what was declared for them."""

    code = "AUDIT_FAILED"


class CommitRejectedError(SinkError):
    """The commit was refused and certainly not applied."""

    code = "COMMIT_REJECTED"
    recovery = Recovery.RETRY


class CommitUnknownError(SinkError):
    """The commit may or may not have been applied; only the sink's marker can tell."""

    code = "COMMIT_UNKNOWN"
    recovery = Recovery.RECONCILE


class FencedError(SinkError):
    """Another owner of the same run has committed; this one must stop."""

    code = "FENCED"


# --- state -----------------------------------------------------------------------------------


class StateError(MatihError):
    """The metadata or key-value store failed."""

    code = "STATE_FAILED"
    recovery = Recovery.RETRY


class StateDiskFullError(StateError):
    """There is no space left for a streaming job's state or checkpoints."""

    code = "STATE_DISK_FULL"
    recovery = Recovery.PAUSE


class StateConflictError(StateError):
    """Compare-and-set lost: somebody else wrote this key since it was read."""

    code = "STATE_CONFLICT"
    recovery = Recovery.ABORT


class StateVersionError(StateError):
    """Stored data has a schema version that this software does not know."""

    code = "STATE_VERSION"
    recovery = Recovery.ABORT
