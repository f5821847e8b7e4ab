"""One connection: settings under which values are exact, and results in Arrow."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa
import snowflake.connector
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from snowflake.connector.errors import Error, ProgrammingError

from matih_ray.errors import (
    AuthenticationFailedError,
    ConnectionRefusedByHostError,
    DatabaseNotFoundError,
    SourceTimeoutError,
)
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.snowflake import catalog
from matih_ray.sources.snowflake.config import SnowflakeConfig
from matih_ray.sources.snowflake.decoding import decoded
from matih_ray.sources.snowflake.dialect import SnowflakeDialect
from matih_ray.sources.snowflake.failures import mapped_errors
from matih_ray.sources.sql.dialect import SqlRelation

# Rows of one batch; the service's own pieces are 16 MB at most, compressed.
MAX_BATCH_ROWS = 50_000
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
_SETTINGS = {"TIMEZONE": "UTC", "QUERY_TAG": "matih-ray"}


class SnowflakeSession:
    """One login. Not thread-safe."""

    def __init__(
        self,
        config: SnowflakeConfig,
        secrets: Mapping[str, str],
        policy: HostPolicy,
    ) -> None:
        """Connect and choose the database.

        Raises:
            HostNotAllowedError: The operator does not allow the host.
            SourceError: With one of the seven stable connectivity codes.
        """
        proof = _proof(config, secrets)
        _knock(config, policy)
        named = {"warehouse": config.warehouse, "role": config.role}
        with mapped_errors(f"cannot connect to {config.address}:{config.port}"):
            self._connection = snowflake.connector.connect(
                account=config.account,
                user=config.user,
                host=config.address,
                port=config.port,
                protocol=config.scheme,
                login_timeout=config.connect_timeout_s,
                socket_timeout=config.read_timeout_s,
                arrow_number_to_decimal=True,  # otherwise decimals become floats
                session_parameters=dict(_SETTINGS),
                **proof,
                **{name: folded(value) for name, value in named.items() if value is not None},
            )
        self._schema = None if config.schema_ is None else folded(config.schema_)
        try:
            self._use(folded(config.database))
        except BaseException:
            self.close()
            raise

    def version(self) -> str:
        """The service's version."""
        with mapped_errors("asking for the version"):
            [row] = self._rows("SELECT CURRENT_VERSION() AS VERSION")
        return f"Snowflake {row['VERSION']}"

    def names(self) -> Sequence[catalog.Name]:
        """(schema, name) of all tables and views that the role may see."""
        with mapped_errors("listing tables"):
            return catalog.names(self._rows, self._schema)

    def relations(self, names: Sequence[catalog.Name]) -> Sequence[SqlRelation]:
        """Those of them that exist, with columns, keys and estimates; reads catalogs only."""
        with mapped_errors("reading the catalog"):
            return catalog.relations(self._rows, names)

    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows of a SELECT as batches of this schema."""
        with mapped_errors("reading rows"), self._connection.cursor() as cursor:
            cursor.execute(statement)
            for table in cursor.fetch_arrow_batches():
                yield from decoded(table, schema).to_batches(max_chunksize=MAX_BATCH_ROWS)

    def close(self) -> None:
        """Log out, whatever state the connection is in."""
        with contextlib.suppress(Error):
            self._connection.close(retry=False)

    def _use(self, database: str) -> None:
        with mapped_errors("choosing the database"):
            try:
                self._rows(f"USE DATABASE {SnowflakeDialect().quoted(database)}")
            except ProgrammingError as error:
                if error.errno not in (2003, 2043):
                    raise
                raise DatabaseNotFoundError(
                    f"there is no database {database!r} that the role may use"
                ) from None

    def _rows(self, statement: str) -> list[catalog.Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def folded(name: str) -> str:
    """A name as Snowflake takes it without quotes: in capitals, if it needs no quotes."""
    return name.upper() if _PLAIN.fullmatch(name) else name


def _knock(config: SnowflakeConfig, policy: HostPolicy) -> None:
    """Open and close a connection: the driver would only say after many attempts that it cannot."""
    place = f"{config.address}:{config.port}"
    [address, *_] = policy.resolve_allowed(config.address, config.port)
    try:
        target = (str(address), config.port)
        socket.create_connection(target, timeout=config.connect_timeout_s).close()
    except TimeoutError:
        raise SourceTimeoutError(f"cannot connect to {place}: no answer in time") from None
    except OSError as error:
        raise ConnectionRefusedByHostError(
            f"cannot connect to {place}: {error.strerror or error}"
        ) from None


def _proof(config: SnowflakeConfig, secrets: Mapping[str, str]) -> dict[str, str | bytes]:
    """What the driver logs in with."""
    key, password = secrets.get("privateKey"), secrets.get("password")
    if key:
        return {"private_key": _der(key, secrets.get("privateKeyPassphrase"))}
    if password:
        return {"password": password}
    raise AuthenticationFailedError(
        f"the connector to {config.address} needs a password or a privateKey"
    )


def _der(pem: str, passphrase: str | None) -> bytes:
    try:
        key = load_pem_private_key(pem.encode(), passphrase.encode() if passphrase else None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise AuthenticationFailedError(
            "privateKey is not a private key in PEM, or privateKeyPassphrase is not the one that "
            "it was encrypted with"
        ) from None
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
