"""The warehouse's side of the client's protocol (Thrift's TCLIService), on DuckDB.

Answers come with the statement where they are ready (direct results), in pages of Arrow. The names
of methods and fields are those of the client's own generated code.
"""

from __future__ import annotations

import re
import threading
import uuid
from dataclasses import dataclass
from typing import Any

import duckdb
import lz4.frame
import pyarrow as pa
from databricks.sql.thrift_api.TCLIService import ttypes as t
from sqlglot import exp
from sqlglot.errors import SqlglotError

from matih_ray.testing.devstack.databricks_sql import (
    DatabricksSql,
    arrow_type,
    information_schema,
)
from matih_ray.testing.devstack.duck_sql import DuckSession, DuckSql

_BY_ERROR: tuple[tuple[type[Exception], str, str], ...] = (
    (duckdb.CatalogException, "TABLE_OR_VIEW_NOT_FOUND", "42P01"),
    (duckdb.BinderException, "UNRESOLVED_COLUMN.WITH_SUGGESTION", "42703"),
    (duckdb.ConversionException, "CAST_INVALID_INPUT", "22018"),
    (SqlglotError, "PARSE_SYNTAX_ERROR", "42601"),
    (duckdb.Error, "INTERNAL_ERROR", "XX000"),
)
_USE = re.compile(r"USE CATALOG `(.+)`")
_TYPE_IDS = {
    "tinyint": t.TTypeId.TINYINT_TYPE,
    "smallint": t.TTypeId.SMALLINT_TYPE,
    "int": t.TTypeId.INT_TYPE,
    "bigint": t.TTypeId.BIGINT_TYPE,
    "boolean": t.TTypeId.BOOLEAN_TYPE,
    "float": t.TTypeId.FLOAT_TYPE,
    "double": t.TTypeId.DOUBLE_TYPE,
    "date": t.TTypeId.DATE_TYPE,
    "timestamp": t.TTypeId.TIMESTAMP_TYPE,
    "timestamp_ntz": t.TTypeId.TIMESTAMP_TYPE,
    "binary": t.TTypeId.BINARY_TYPE,
}


class RefusedError(Exception):
    """What the warehouse says of a statement: an error class and a text."""


@dataclass
class _Operation:
    """A statement that ran: its rows, and how far they were fetched."""

    columns: tuple[tuple[str, str], ...] = ()
    rows: pa.Table | None = None
    error: str | None = None
    polls_left: int = 0
    fetched: int = 0
    compressed: bool = False


class Warehouse(DuckSql):
    """Sessions and statements.

    `denied` tables may be read by nobody; `closed` catalogs exist and may be used by nobody;
    `polls` is how often a client has to ask for the end of a statement; `cold` is how many
    statements are still to be refused, as those of a session that was opened too early.
    """

    def __init__(self, catalog: str) -> None:
        super().__init__(DatabricksSql())
        self.catalog = catalog
        self.denied: set[tuple[str, str]] = set()
        self.closed: set[str] = set()
        self.polls = 0
        self.cold = 0
        self.statements: list[str] = []
        self.sessions: dict[bytes, DuckSession] = {}
        self._operations: dict[bytes, _Operation] = {}
        self._running = threading.Lock()

    def end_sessions(self) -> None:
        """Forget all sessions and statements, as a warehouse that is started again."""
        with self._running:
            self.sessions.clear()
            self._operations.clear()

    # --- the methods of TCLIService that the client calls ---

    def OpenSession(self, request: Any) -> Any:  # noqa: ARG002, N802 the protocol's shape
        guid = uuid.uuid4().bytes
        self.sessions[guid] = self.session()
        return t.TOpenSessionResp(
            status=_success(),
            serverProtocolVersion=t.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7,
            sessionHandle=t.TSessionHandle(t.THandleIdentifier(guid, guid)),
            canUseMultipleCatalogs=True,
        )

    def CloseSession(self, request: Any) -> Any:  # noqa: N802 the protocol's name
        session = self.sessions.pop(request.sessionHandle.sessionId.guid, None)
        if session is not None:
            session.close()
        return t.TCloseSessionResp(_success())

    def ExecuteStatement(self, request: Any) -> Any:  # noqa: N802 the protocol's name
        session = self.sessions.get(request.sessionHandle.sessionId.guid)
        if self.cold:
            self.cold -= 1
            text = "requirement failed: Session handle: SessionHandle [0] has not been initialized "
            return t.TExecuteStatementResp(
                t.TStatus(t.TStatusCode.ERROR_STATUS, errorMessage=f"{text}or had already closed.")
            )
        if session is None:
            return t.TExecuteStatementResp(_gone("SessionHandle"))
        guid = uuid.uuid4().bytes
        operation = self._executed(session, request.statement)
        operation.compressed = bool(request.canDecompressLZ4Result)
        self._operations[guid] = operation
        handle = t.TOperationHandle(
            t.THandleIdentifier(guid, guid), t.TOperationType.EXECUTE_STATEMENT, hasResultSet=True
        )
        wanted, direct = request.getDirectResults, None
        if wanted is not None and not operation.polls_left:
            direct = t.TSparkDirectResults(operationStatus=_state(operation))
            if operation.error is None:
                direct.resultSetMetadata = _metadata(operation)
                direct.resultSet = _page(operation, wanted.maxRows, wanted.maxBytes)
        return t.TExecuteStatementResp(_success(), handle, direct)

    def GetOperationStatus(self, request: Any) -> Any:  # noqa: N802 the protocol's name
        return _state(self._operations[request.operationHandle.operationId.guid])

    def GetResultSetMetadata(self, request: Any) -> Any:  # noqa: N802 the protocol's name
        return _metadata(self._operations[request.operationHandle.operationId.guid])

    def FetchResults(self, request: Any) -> Any:  # noqa: N802 the protocol's name
        operation = self._operations.get(request.operationHandle.operationId.guid)
        if operation is None:
            return t.TFetchResultsResp(_gone("OperationHandle"))
        return _page(operation, request.maxRows, request.maxBytes)

    def CloseOperation(self, request: Any) -> Any:  # noqa: N802 the protocol's name
        self._operations.pop(request.operationHandle.operationId.guid, None)
        return t.TCloseOperationResp(_success())

    def CancelOperation(self, request: Any) -> Any:  # noqa: ARG002, N802 the protocol's shape
        return t.TCancelOperationResp(_success())

    # --- statements ---

    def _executed(self, session: DuckSession, statement: str) -> _Operation:
        self.statements.append(statement)
        try:
            with self._running:
                columns, rows = self._result(session, statement)
        except RefusedError as refused:
            return _Operation(error=str(refused))
        except (duckdb.Error, SqlglotError) as error:
            name, state = next((n, s) for kind, n, s in _BY_ERROR if isinstance(error, kind))
            detail = re.sub(r"\x1b\[\d*m", "", str(error)).splitlines()[0]
            return _Operation(error=f"[{name}] {detail} SQLSTATE: {state}", polls_left=self.polls)
        return _Operation(columns, rows, polls_left=self.polls)

    def _result(
        self, session: DuckSession, statement: str
    ) -> tuple[tuple[tuple[str, str], ...], pa.Table]:
        if statement.startswith("SET "):
            return (), pa.table({})
        if (use := _USE.fullmatch(statement)) is not None:
            self._use(use[1].replace("``", "`"))
            return (), pa.table({})
        parsed = session.parsed(statement)
        for table in parsed.find_all(exp.Table):
            self._check(table)
            if table.db == "information_schema":
                for name, rows in information_schema(self).items():
                    session.offer(name, rows)
        found = session.query(parsed)
        schema = pa.schema([pa.field(name, arrow_type(type_)) for name, type_ in found.columns])
        # as Python's values: DuckDB's versions have other ways to Arrow
        values = list(zip(*found.cursor.fetchall(), strict=True)) or [()] * len(schema)
        arrays = [pa.array(column, f.type) for column, f in zip(values, schema, strict=True)]
        return found.columns, pa.Table.from_arrays(arrays, schema=schema)

    def _use(self, catalog: str) -> None:
        if catalog in self.closed:
            raise RefusedError(
                f"PERMISSION_DENIED: User does not have USE CATALOG on Catalog '{catalog}'."
            )
        if catalog != self.catalog:
            raise RefusedError(
                f"[NO_SUCH_CATALOG_EXCEPTION] Catalog '{catalog}' was not found. Please verify the "
                "catalog name and then retry the query or command again. SQLSTATE: 42704"
            )

    def _check(self, table: exp.Table) -> None:
        if self.name_of(table) in self.denied:
            raise RefusedError(
                "[INSUFFICIENT_PERMISSIONS] Insufficient privileges:\nUser does not have "
                f"permission SELECT on table `{table.name}`. SQLSTATE: 42501"
            )


class RealTimeWarehouse:
    """One of the kind that does not speak this protocol."""

    def OpenSession(self, request: Any) -> Any:  # noqa: ARG002, N802 the protocol's shape
        text = "Thrift is not supported on this warehouse"
        return t.TOpenSessionResp(
            t.TStatus(t.TStatusCode.ERROR_STATUS, sqlState="KP001", errorMessage=text),
            t.TProtocolVersion.SPARK_CLI_SERVICE_PROTOCOL_V7,
        )


def _success() -> Any:
    return t.TStatus(t.TStatusCode.SUCCESS_STATUS)


def _gone(handle: str) -> Any:
    return t.TStatus(t.TStatusCode.INVALID_HANDLE_STATUS, errorMessage=f"Invalid {handle}")


def _state(operation: _Operation) -> Any:
    if operation.polls_left:
        operation.polls_left -= 1
        return t.TGetOperationStatusResp(_success(), t.TOperationState.RUNNING_STATE)
    if operation.error is not None:
        return t.TGetOperationStatusResp(
            _success(),
            t.TOperationState.ERROR_STATE,
            errorMessage=operation.error,
            displayMessage=operation.error,
        )
    return t.TGetOperationStatusResp(_success(), t.TOperationState.FINISHED_STATE)


def _metadata(operation: _Operation) -> Any:
    assert operation.rows is not None, "a statement that failed has none"
    columns = [
        t.TColumnDesc(name, _type(type_), place)
        for place, (name, type_) in enumerate(operation.columns, 1)
    ]
    return t.TGetResultSetMetadataResp(
        _success(),
        schema=t.TTableSchema(columns),
        resultFormat=t.TSparkRowSetType.ARROW_BASED_SET,
        lz4Compressed=operation.compressed,
        arrowSchema=operation.rows.schema.serialize().to_pybytes(),
    )


def _type(declared: str) -> Any:
    arrow, qualifiers = arrow_type(declared), None
    type_id = _TYPE_IDS.get(declared, t.TTypeId.STRING_TYPE)
    if pa.types.is_decimal(arrow):
        type_id = t.TTypeId.DECIMAL_TYPE
        values = {"precision": arrow.precision, "scale": arrow.scale}
        qualifiers = t.TTypeQualifiers(
            {name: t.TTypeQualifierValue(i32Value=value) for name, value in values.items()}
        )
    return t.TTypeDesc([t.TTypeEntry(t.TPrimitiveTypeEntry(type_id, qualifiers))])


def _page(operation: _Operation, max_rows: int, max_bytes: int) -> Any:
    rows, start = operation.rows, operation.fetched
    assert rows is not None, "a statement that failed has none"
    row_bytes = max(rows.nbytes // max(rows.num_rows, 1), 1)
    page = rows.slice(start, max(min(max_rows, max_bytes // row_bytes), 1))
    operation.fetched += page.num_rows
    packed = lz4.frame.compress if operation.compressed else bytes
    batches = [
        t.TSparkArrowBatch(packed(batch.serialize().to_pybytes()), batch.num_rows)
        for batch in page.combine_chunks().to_batches()
    ]
    return t.TFetchResultsResp(
        _success(),
        hasMoreRows=operation.fetched < rows.num_rows,
        results=t.TRowSet(startRowOffset=start, rows=[], arrowBatches=batches),
        resultSetMetadata=_metadata(operation),
    )
