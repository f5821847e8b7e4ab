"""One small source of each connector type: what a user would write to connect it, and how it grows.

Rows have `id` (from 1), `name` and, where sources have no order of their own, `version`, which
grows with each change. `add` makes ids up to a number exist, `change` gives some other names.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import snowflake.connector
from confluent_kafka.admin import AclOperation
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from matih_ray.testing.devstack.bigquery import BigQueryServer
from matih_ray.testing.devstack.confluence_site import TOKEN as CONFLUENCE_TOKEN
from matih_ray.testing.devstack.confluence_site import USER as CONFLUENCE_USER
from matih_ray.testing.devstack.confluence_site import ConfluenceSite
from matih_ray.testing.devstack.databricks import HTTP_PATH, DatabricksServer
from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION, DynamoServer
from matih_ray.testing.devstack.google_gate import GoogleGate
from matih_ray.testing.devstack.graph_drives import CLIENT_ID, DIRECTORY, DRIVE, GraphDrives
from matih_ray.testing.devstack.graph_drives import SECRET as GRAPH_SECRET
from matih_ray.testing.devstack.http_apis import HttpApis
from matih_ray.testing.devstack.jira import TOKEN, USER, JiraServer
from matih_ray.testing.devstack.kafka import KafkaServer
from matih_ray.testing.devstack.mariadb import MariaDbServer
from matih_ray.testing.devstack.mongodb import MongoServer
from matih_ray.testing.devstack.object_stores import (
    ACCOUNT,
    SECRET_ACCESS_KEY,
    AzuriteServer,
    GcsServer,
    S3Server,
)
from matih_ray.testing.devstack.oracle import OracleServer
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.devstack.snowflake import SnowflakeServer
from matih_ray.testing.devstack.sqlserver import SqlServer


def name_of(number: int) -> str:
    """The name of a row; long enough that a few thousand rows are over 100 KB."""
    return f"name {number} " + "ñ" * 40


def changed_name_of(number: int) -> str:
    """The name of a row after its change."""
    return name_of(number) + " changed"


# Added rows have their id as version, which is always less.
CHANGED = 1_000_000


@dataclass(frozen=True)
class Walk:
    """`draft` is the connector without its name; `cursor` is the column of incremental runs, None
    where the source has an order of its own or none at all. `columns` hold id and name.
    Incremental runs find changed rows too, unless `finds_changes` says otherwise. With `overlaps` a
    merge reads again what had changed shortly before: only it can tell what it has already."""

    draft: dict[str, Any]
    unit_id: str
    add: Callable[[int, int], None]
    change: Callable[[int, int], None]
    cursor: str | None = "version"
    incremental: bool = True
    finds_changes: bool = True
    overlaps: bool = False
    encodings: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, str] = ("id", "name")


def _sql_rows(first: int, last: int) -> str:
    return ", ".join(f"({n}, '{name_of(n)}', {n})" for n in range(first, last + 1))


def _sql_changes(
    table: str, execute: Callable[[str], object], quote: str = ""
) -> Callable[[int, int], None]:
    id_, name, version = (f"{quote}{column}{quote}" for column in ("id", "name", "version"))

    def change(first: int, last: int) -> None:
        execute(
            f"UPDATE {table} SET {name} = concat({name}, ' changed'), "
            f"{version} = {version} + {CHANGED} WHERE {id_} BETWEEN {first} AND {last}"
        )

    return change


@contextmanager
def postgresql() -> Iterator[Walk]:
    with PostgresServer() as server:
        server.execute("CREATE TABLE items (id bigint PRIMARY KEY, name text, version bigint)")

        def add(first: int, last: int) -> None:
            rows = _sql_rows(first, last)
            server.execute(f"INSERT INTO items VALUES {rows}; ANALYZE items")

        draft = {
            "type": "POSTGRESQL",
            "host": server.host,
            "port": server.port,
            "database": "postgres",
            "credentials": {"username": server.user},
            "sslEnabled": False,
        }
        yield Walk(draft, "public.items", add, _sql_changes("items", server.execute))


@contextmanager
def redshift() -> Iterator[Walk]:
    with PostgresServer() as server:
        server.execute(
            "CREATE TABLE items (id bigint PRIMARY KEY, name varchar(200), version bigint);"
            "CREATE ROLE reader LOGIN; GRANT SELECT ON items TO reader"
        )

        def add(first: int, last: int) -> None:
            rows = _sql_rows(first, last)
            server.execute(f"INSERT INTO items VALUES {rows}")

        draft = {
            "type": "REDSHIFT",
            "host": server.host,
            "port": server.port,
            "database": "postgres",
            "credentials": {"username": "reader", "password": "open sesame"},
            "sslEnabled": False,
        }
        yield Walk(draft, "public.items", add, _sql_changes("items", server.execute))


@contextmanager
def snowflake_() -> Iterator[Walk]:
    with (
        SnowflakeServer() as server,
        snowflake.connector.connect(
            account="shop",
            user="owner",
            password="any",
            host=server.host,
            port=server.port,
            protocol="http",
            database="SHOP",
            schema="PUBLIC",
        ) as connection,
    ):
        connection.cursor().execute(
            'CREATE TABLE items ("id" number(18,0) PRIMARY KEY, "name" text, "version" bigint)'
        )

        def add(first: int, last: int) -> None:
            rows = _sql_rows(first, last)
            connection.cursor().execute(f"INSERT INTO items VALUES {rows}")

        draft = {
            "type": "SNOWFLAKE",
            "host": server.host,
            "port": server.port,
            "database": "SHOP",
            "credentials": {"username": "reader", "password": "open sesame"},
            "metadata": {"account": "shop", "protocol": "http"},
        }
        change = _sql_changes("items", lambda text: connection.cursor().execute(text), quote='"')
        yield Walk(draft, "PUBLIC.ITEMS", add, change)


@contextmanager
def oracle() -> Iterator[Walk]:
    """The runtime's processes have the stand-in for the driver's `connect`; see `drivers`."""
    with OracleServer({"READER": "open sesame"}) as server:
        columns = {"id": "NUMBER(18,0)", "name": "VARCHAR2(200)", "version": "NUMBER(18,0)"}
        server.create_table("SHOP", "ITEMS", columns, key=("id",))

        def add(first: int, last: int) -> None:
            rows = _sql_rows(first, last)
            server.run(f'INSERT INTO "SHOP"."ITEMS" VALUES {rows}')

        draft = {
            "type": "ORACLE",
            "host": server.host,
            "port": server.port,
            "database": server.service,
            "credentials": {"username": "READER", "password": "open sesame"},
            "sslEnabled": False,
        }
        change = _sql_changes('"SHOP"."ITEMS"', server.run, quote='"')
        yield Walk(draft, "SHOP.ITEMS", add, change)


@contextmanager
def sql_server() -> Iterator[Walk]:
    with SqlServer({"reader": "open sesame"}) as server:
        columns = {"id": "bigint", "name": "nvarchar(200)", "version": "bigint"}
        server.create_table("dbo", "items", columns, key=("id",))

        def add(first: int, last: int) -> None:
            rows = _sql_rows(first, last)
            server.run(f"INSERT INTO dbo.items VALUES {rows}")

        draft = {
            "type": "SQL_SERVER",
            "host": server.host,
            "port": server.port,
            "database": server.database,
            "credentials": {"username": "reader", "password": "open sesame"},
            "sslEnabled": False,
        }
        yield Walk(draft, "dbo.items", add, _sql_changes("dbo.items", server.run))


@contextmanager
def databricks() -> Iterator[Walk]:
    with DatabricksServer("open-sesame") as server:
        columns = {"id": "bigint", "name": "string", "version": "bigint"}
        server.create_table("sales", "items", columns, ("id",))

        def add(first: int, last: int) -> None:
            rows = _sql_rows(first, last)
            server.run(f"INSERT INTO sales.items VALUES {rows}")

        draft = {
            "type": "DATABRICKS_SQL",
            "host": server.host,
            "port": server.port,
            "database": "shop",
            "credentials": {"token": "open-sesame"},
            "sslEnabled": False,
            "metadata": {"httpPath": HTTP_PATH},
        }
        yield Walk(draft, "sales.items", add, _sql_changes("sales.items", server.run))


@contextmanager
def mysql() -> Iterator[Walk]:
    with MariaDbServer() as server:
        server.execute("CREATE DATABASE shop")
        server.execute(
            "CREATE TABLE items (id bigint PRIMARY KEY, name varchar(200), version bigint) "
            "CHARSET utf8mb4",
            "CREATE USER reader@'%' IDENTIFIED BY 'open sesame'",
            "GRANT ALL ON shop.* TO reader@'%'",
            "GRANT PROCESS ON *.* TO reader@'%'",  # sees open transactions
            database="shop",
        )

        def add(first: int, last: int) -> None:
            rows = _sql_rows(first, last)
            server.execute(f"INSERT INTO items VALUES {rows}", database="shop")

        draft = {
            "type": "MYSQL",
            "host": server.host,
            "port": server.port,
            "database": "shop",
            "credentials": {"username": "reader", "password": "open sesame"},
            "sslEnabled": False,
        }
        change = _sql_changes("items", lambda text: server.execute(text, database="shop"))
        yield Walk(draft, "shop.items", add, change)


@contextmanager
def mongodb() -> Iterator[Walk]:
    with MongoServer() as server:

        def add(first: int, last: int) -> None:
            documents = [
                {"_id": n, "id": n, "name": name_of(n), "version": n}
                for n in range(first, last + 1)
            ]
            with closing(server.client()) as client:
                client["shop"]["items"].insert_many(documents)

        def change(first: int, last: int) -> None:
            with closing(server.client()) as client:
                for n in range(first, last + 1):
                    after = {"name": changed_name_of(n), "version": CHANGED + n}
                    client["shop"]["items"].update_one({"_id": n}, {"$set": after})

        draft = {
            "type": "MONGODB",
            "host": server.host,
            "port": server.port,
            "database": "shop",
            "sslEnabled": False,
        }
        yield Walk(draft, "shop.items", add, change)


@contextmanager
def dynamodb() -> Iterator[Walk]:
    with DynamoServer() as server:
        server.create_table("items", "id:N")

        def put(numbers: range, named: Callable[[int], str], later: int) -> None:
            items = [
                {"id": {"N": str(n)}, "name": {"S": named(n)}, "version": {"N": str(later + n)}}
                for n in numbers
            ]
            server.put("items", items)

        def add(first: int, last: int) -> None:
            put(range(first, last + 1), name_of, 0)

        def change(first: int, last: int) -> None:
            put(range(first, last + 1), changed_name_of, CHANGED)

        draft = {
            "type": "DYNAMODB",
            "credentials": {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": "open sesame"},
            "metadata": {"region": REGION, "endpointOverride": server.url},
        }
        # numbers have any scale and arrive as text, which has another order
        encodings = (("version", "decimal(18,0)"),)
        yield Walk(draft, "items", add, change, encodings=encodings)


@contextmanager
def kafka() -> Iterator[Walk]:
    with KafkaServer({"reader": "open sesame"}) as server:
        server.create_topic("items", 2)
        server.allow("reader", AclOperation.READ, "items")

        def send(numbers: range, named: Callable[[int], str]) -> None:
            rows = ({"id": n, "name": named(n)} for n in numbers)
            server.produce("items", ((b"%d" % row["id"], json.dumps(row).encode()) for row in rows))

        def add(first: int, last: int) -> None:
            send(range(first, last + 1), name_of)

        def change(first: int, last: int) -> None:
            send(range(first, last + 1), changed_name_of)

        draft = {
            "type": "KAFKA",
            "host": "127.0.0.1",
            "port": server.port,
            "credentials": {"username": "reader", "password": "open sesame"},
            "sslEnabled": False,
        }
        yield Walk(draft, "items", add, change, cursor="_offset")


@contextmanager
def rest() -> Iterator[Walk]:
    with HttpApis() as api:
        stream = {
            "name": "items",
            "path": "/pages/offset",
            "recordPath": "data",
            "primaryKey": ["id"],
            "pagination": {"style": "offset", "size": 500},
            "cursor": {
                "field": "id",
                "type": "integer",
                "param": "since",
                "upperParam": "until",
                "probe": {"sort": "newest"},
                "start": 0,
            },
        }
        draft = {
            "type": "REST",
            "credentials": {"token": "open sesame"},
            "metadata": {"baseUrl": api.url, "auth": {"kind": "bearer"}, "streams": [stream]},
        }
        yield Walk(
            draft, "items", _adds_to(api), _changes_in(api), cursor="id", finds_changes=False
        )


@contextmanager
def graphql() -> Iterator[Walk]:
    query = """query ($offset: Int!, $limit: Int!) {
      listed(offset: $offset, limit: $limit) { id name } }"""
    with HttpApis() as api:
        stream = {
            "name": "items",
            "query": query,
            "recordPath": "listed",
            "pagination": "offset",
            "pageSize": 500,
            "primaryKey": ["id"],
        }
        draft = {
            "type": "GRAPHQL",
            "credentials": {"token": "open sesame"},
            "metadata": {
                "url": f"{api.url}/graphql",
                "auth": {"kind": "bearer"},
                "streams": [stream],
            },
        }
        yield Walk(draft, "items", _adds_to(api), _changes_in(api), cursor=None, incremental=False)


@contextmanager
def jira() -> Iterator[Walk]:
    with JiraServer() as server:
        server.do("add_project", key="SHOP")

        def add(first: int, last: int) -> None:
            names = [name_of(n) for n in range(first, last + 1)]
            server.do("add_issues", project="SHOP", first_id=first, summaries=names)

        def change(first: int, last: int) -> None:
            for number in range(first, last + 1):
                server.do("edit", id_=number, fields={"summary": changed_name_of(number)})

        draft = {
            "type": "JIRA",
            "credentials": {"username": USER, "apiToken": TOKEN},
            "metadata": {"baseUrl": server.url},
        }
        columns = ("id", "summary")
        yield Walk(
            draft, "jira.issues", add, change, "_source_version", overlaps=True, columns=columns
        )


@contextmanager
def s3() -> Iterator[Walk]:
    with S3Server() as server:
        server.create_bucket("lake")

        draft = {
            "type": "S3",
            "credentials": {
                "accessKeyId": ACCESS_KEY_ID,
                "secretAccessKey": SECRET_ACCESS_KEY,
            },
            "metadata": {
                "bucket": "lake",
                "prefix": "shop",
                "region": REGION,
                "endpointOverride": server.url,
            },
        }
        yield Walk(draft, "items", *_files_on(server), cursor=None)


@contextmanager
def azure_blob() -> Iterator[Walk]:
    with AzuriteServer() as server:
        server.create_bucket("lake")
        draft = {
            "type": "AZURE_BLOB",
            "credentials": {"sasToken": server.signature("lake", "rl")},
            "metadata": {
                "account": ACCOUNT,
                "container": "lake",
                "prefix": "shop",
                "endpointOverride": server.url,
            },
        }
        yield Walk(draft, "items", *_files_on(server), cursor=None)


@contextmanager
def gcs() -> Iterator[Walk]:
    with GcsServer() as server, GoogleGate(server.url) as gate:
        server.create_bucket("lake")
        draft = {
            "type": "GCS",
            "credentials": {"serviceAccountKey": gate.key_file()},
            "metadata": {"bucket": "lake", "prefix": "shop", "endpointOverride": gate.url},
        }
        yield Walk(draft, "items", *_files_on(server), cursor=None)


@contextmanager
def bigquery_() -> Iterator[Walk]:
    with BigQueryServer() as server, GoogleGate(f"http://{server.host}:{server.port}") as gate:
        client = bigquery.Client(
            project="shop",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": f"http://{server.host}:{server.port}"},
        )

        def execute(statement: str) -> None:
            client.query_and_wait(statement, retry=None, job_retry=None)

        def add(first: int, last: int) -> None:
            rows = _sql_rows(first, last)
            execute(f"INSERT INTO sales.items (id, name, version) VALUES {rows}")

        execute("CREATE SCHEMA sales")
        execute("CREATE TABLE sales.items (id INT64, name STRING, version INT64)")
        draft = {
            "type": "BIGQUERY",
            "credentials": {"serviceAccountKey": gate.key_file()},
            "metadata": {"projectId": "shop", "dataset": "sales", "endpointOverride": gate.url},
        }
        with closing(client):
            yield Walk(draft, "sales.items", add, _sql_changes("sales.items", execute))


@contextmanager
def confluence() -> Iterator[Walk]:
    with ConfluenceSite() as site:

        def add(first: int, last: int) -> None:
            for number in range(first, last + 1):
                site.put(str(number), name_of(number))
                site.tick()

        def change(first: int, last: int) -> None:
            for number in range(first, last + 1):
                site.put(str(number), changed_name_of(number))
                site.tick()

        draft = {
            "type": "CONFLUENCE",
            "credentials": {"apiToken": CONFLUENCE_TOKEN},
            "metadata": {"baseUrl": site.url, "user": CONFLUENCE_USER},
        }
        columns = ("id", "title")
        yield Walk(draft, "confluence.pages", add, change, cursor=None, columns=columns)


@contextmanager
def onedrive() -> Iterator[Walk]:
    with GraphDrives() as graph:

        def add(first: int, last: int) -> None:
            if first == 1:  # the root folder is an item like others
                graph.add_drive(DRIVE, root="1", name=name_of(1))
            for number in range(max(first, 2), last + 1):
                graph.put(str(number), name_of(number), "1")

        def change(first: int, last: int) -> None:
            for number in range(first, last + 1):
                graph.put(str(number), changed_name_of(number), "1")

        draft = {
            "type": "ONEDRIVE",
            "credentials": {"clientSecret": GRAPH_SECRET},
            "metadata": {
                "directoryId": DIRECTORY,
                "clientId": CLIENT_ID,
                "drives": [DRIVE],
                "graphUrl": f"{graph.url}/v1.0",
                "loginUrl": graph.url,
            },
        }
        columns = ("item_id", "name")
        yield Walk(draft, "onedrive.items", add, change, cursor=None, columns=columns)


def _files_on(
    server: S3Server | AzuriteServer | GcsServer,
) -> tuple[Callable[[int, int], None], Callable[[int, int], None]]:
    def put(numbers: range, named: Callable[[int], str], file: str) -> None:
        rows = {"id": list(numbers), "name": [named(n) for n in numbers]}
        out = io.BytesIO()
        pq.write_table(pa.table(rows), out)
        server.put("lake", f"shop/items/{file}.parquet", out.getvalue())

    def add(first: int, last: int) -> None:
        put(range(first, last + 1), name_of, str(first))

    def change(first: int, last: int) -> None:
        put(range(first, last + 1), changed_name_of, f"changes-{first}")

    return add, change


def _changes_in(api: HttpApis) -> Callable[[int, int], None]:
    def change(first: int, last: int) -> None:
        for record in api.records:
            if first <= record["id"] <= last:
                record["name"] = changed_name_of(record["id"])

    return change


def _adds_to(api: HttpApis) -> Callable[[int, int], None]:
    def add(first: int, last: int) -> None:
        api.records += [{"id": n, "name": name_of(n)} for n in range(first, last + 1)]

    return add


WALKS = {
    "POSTGRESQL": postgresql,
    "MYSQL": mysql,
    "REDSHIFT": redshift,
    "SNOWFLAKE": snowflake_,
    "DATABRICKS_SQL": databricks,
    "SQL_SERVER": sql_server,
    "ORACLE": oracle,
    "MONGODB": mongodb,
    "DYNAMODB": dynamodb,
    "KAFKA": kafka,
    "REST": rest,
    "GRAPHQL": graphql,
    "JIRA": jira,
    "CONFLUENCE": confluence,
    "ONEDRIVE": onedrive,
    "S3": s3,
    "AZURE_BLOB": azure_blob,
    "GCS": gcs,
    "BIGQUERY": bigquery_,
}
