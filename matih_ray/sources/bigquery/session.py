"""One client: queries in pages, and the catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from google.api_core.exceptions import NotFound
from google.cloud import bigquery
from google.cloud.bigquery.retry import DEFAULT_RETRY

from matih_ray.errors import DatabaseNotFoundError, SourceChangedError
from matih_ray.sources.batching import joined
from matih_ray.sources.bigquery.catalog import KINDS, relation_of
from matih_ray.sources.bigquery.config import BigQueryConfig
from matih_ray.sources.bigquery.decoding import RawRow, record_batch
from matih_ray.sources.bigquery.failures import mapped_errors
from matih_ray.sources.bigquery.http import SCOPE, BigQueryHttp
from matih_ray.sources.google_login import google_credentials
from matih_ray.sources.host_policy import HostPolicy
from matih_ray.sources.sql.dialect import SqlRelation

SERVICE = "https://bigquery.googleapis.com"
# Rows of a page; the service ends pages at about 10 MB of its own accord.
PAGE_ROWS = 20_000
NAMES_PER_PAGE = 1000
# Requests are repeated, with growing pauses, until this has passed. What lasts longer is for the
# failure policy.
RETRY_S = 10.0
# BigQuery ends queries after six hours.
MAX_QUERY_S = 6 * 3600.0


class BigQuerySession:
    """One client. Not thread-safe."""

    def __init__(
        self, config: BigQueryConfig, secrets: Mapping[str, str], policy: HostPolicy
    ) -> None:
        """Log in; nothing is sent yet.

        Raises:
            AuthenticationFailedError: There is no usable credential.
        """
        self._config = config
        credentials = google_credentials(
            secrets, SCOPE, config.project_id, anonymous=config.anonymous
        )
        self._http = BigQueryHttp(config, credentials, policy)
        self._client = bigquery.Client(
            project=config.billing_project or config.project_id,
            credentials=credentials,
            _http=self._http,
            location=config.location,
            client_options={"api_endpoint": config.endpoint_override or SERVICE},
        )
        self._options: dict[str, Any] = {
            "timeout": float(config.read_timeout_s),
            "retry": DEFAULT_RETRY.with_timeout(RETRY_S),
        }

    def ping(self) -> None:
        """Ask for each dataset, for one of its tables, and for a query."""
        quick: dict[str, Any] = {"timeout": float(self._config.connect_timeout_s), "retry": None}
        for dataset in map(self._dataset, self._config.datasets):
            with mapped_errors(f"cannot list dataset {dataset.dataset_id} of {dataset.project}"):
                self._client.get_dataset(dataset, **quick)
                next(iter(self._client.list_tables(dataset, max_results=1, **quick)), None)
        for _ in self.batches("SELECT 1", pa.schema([("one", pa.int64())])):
            pass

    def names(self) -> Sequence[tuple[str, str]]:
        """(dataset, name) of all tables and views of the connector's datasets."""
        return [
            (dataset, name) for dataset in self._config.datasets for name in self._names(dataset)
        ]

    def relations(self, names: Sequence[tuple[str, str]]) -> Sequence[SqlRelation]:
        """Those of them that exist, with columns, keys and estimates; one request for each."""
        found = [self._relation(*name) for name in names if name[0] in self._config.datasets]
        return [relation for relation in found if relation is not None]

    def batches(self, statement: str, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """Rows of a SELECT as batches of this schema, of about `TARGET_BATCH_BYTES`."""
        return joined(record_batch(rows, schema) for rows in self._pages(statement))

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _dataset(self, name: str) -> bigquery.DatasetReference:
        return bigquery.DatasetReference(self._config.project_id, name)

    def _names(self, dataset: str) -> Iterator[str]:
        with mapped_errors(f"cannot list dataset {dataset}"):
            for item in self._client.list_tables(
                self._dataset(dataset), page_size=NAMES_PER_PAGE, **self._options
            ):
                if item.table_type in KINDS:
                    yield str(item.table_id)

    def _relation(self, dataset: str, name: str) -> SqlRelation | None:
        reference = self._dataset(dataset).table(name)
        with mapped_errors(f"cannot look at {dataset}.{name}"):
            try:
                return relation_of(self._client.get_table(reference, **self._options))
            except NotFound:
                return None

    def _pages(self, statement: str) -> Iterator[list[RawRow]]:
        config = bigquery.QueryJobConfig(maximum_bytes_billed=self._config.max_bytes_billed)
        try:
            with mapped_errors("reading rows"):
                found = self._client.query_and_wait(
                    statement,
                    job_config=config,
                    page_size=PAGE_ROWS,
                    wait_timeout=MAX_QUERY_S,
                    api_timeout=self._options["timeout"],
                    retry=self._options["retry"],
                    job_retry=None,  # for the failure policy
                )
                for page in found.pages:
                    if rows := (page.raw_page or {}).get("rows"):
                        yield rows
        except DatabaseNotFoundError as error:
            raise SourceChangedError(f"a table is gone since planning: {error}") from None
