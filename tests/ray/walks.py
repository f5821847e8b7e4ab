"""One small source of each connector type: what a user would write to connect it, and how it grows.

Rows have `id` (from 1) and `name`; `add` makes ids up to a number exist.
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

from matih_ray.testing.devstack.dynamodb import ACCESS_KEY_ID, REGION, DynamoServer
from matih_ray.testing.devstack.google_gate import GoogleGate
from matih_ray.testing.devstack.http_apis import HttpApis
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
from matih_ray.testing.devstack.postgres import PostgresServer
from matih_ray.testing.devstack.snowflake import SnowflakeServer


def name_of(number: int) -> str:
    """The name of a row; long enough that a few thousand rows are over 100 KB."""
    return f"name {number} " + "ñ" * 40


@dataclass(frozen=True)
class Walk:
    """`draft` is the connector without its name; `cursor` is the column of incremental runs, None
    where the source has an order of its own or none at all."""

    draft: dict[str, Any]
    unit_id: str
    add: Callable[[int, int], None]
    cursor: str | None = "id"
    incremental: bool = True


@contextmanager
def postgresql() -> Iterator[Walk]:
    with PostgresServer() as server:
        server.execute("CREATE TABLE items (id bigint PRIMARY KEY, name text)")

        def add(first: int, last: int) -> None:
            rows = ", ".join(f"({n}, '{name_of(n)}')" for n in range(first, last + 1))
            server.execute(f"INSERT INTO items VALUES {rows}; ANALYZE items")

        draft = {
            "type": "POSTGRESQL",
            "host": server.host,
            "port": server.port,
            "database": "postgres",
            "credentials": {"username": server.user},
            "sslEnabled": False,
        }
        yield Walk(draft, "public.items", add)


@contextmanager
def redshift() -> Iterator[Walk]:
    with PostgresServer() as server:
        server.execute(
            "CREATE TABLE items (id bigint PRIMARY KEY, name varchar(200));"
            "CREATE ROLE reader LOGIN; GRANT SELECT ON items TO reader"
        )

        def add(first: int, last: int) -> None:
            rows = ", ".join(f"({n}, '{name_of(n)}')" for n in range(first, last + 1))
            server.execute(f"INSERT INTO items VALUES {rows}")

        draft = {
            "type": "REDSHIFT",
            "host": server.host,
            "port": server.port,
            "database": "postgres",
            "credentials": {"username": "reader", "password": "open sesame"},
            "sslEnabled": False,
        }
        yield Walk(draft, "public.items", add)


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
            'CREATE TABLE items ("id" number(18,0) PRIMARY KEY, "name" text)'
        )

        def add(first: int, last: int) -> None:
            rows = ", ".join(f"({n}, '{name_of(n)}')" for n in range(first, last + 1))
            connection.cursor().execute(f"INSERT INTO items VALUES {rows}")

        draft = {
            "type": "SNOWFLAKE",
            "host": server.host,
            "port": server.port,
            "database": "SHOP",
            "credentials": {"username": "reader", "password": "open sesame"},
            "metadata": {"account": "shop", "protocol": "http"},
        }
        yield Walk(draft, "PUBLIC.ITEMS", add)


@contextmanager
def mysql() -> Iterator[Walk]:
    with MariaDbServer() as server:
        server.execute("CREATE DATABASE shop")
        server.execute(
            "CREATE TABLE items (id bigint PRIMARY KEY, name varchar(200)) CHARSET utf8mb4",
            "CREATE USER reader@'%' IDENTIFIED BY 'open sesame'",
            "GRANT ALL ON shop.* TO reader@'%'",
            "GRANT PROCESS ON *.* TO reader@'%'",  # sees open transactions
            database="shop",
        )

        def add(first: int, last: int) -> None:
            rows = ", ".join(f"({n}, '{name_of(n)}')" for n in range(first, last + 1))
            server.execute(f"INSERT INTO items VALUES {rows}", database="shop")

        draft = {
            "type": "MYSQL",
            "host": server.host,
            "port": server.port,
            "database": "shop",
            "credentials": {"username": "reader", "password": "open sesame"},
            "sslEnabled": False,
        }
        yield Walk(draft, "shop.items", add)


@contextmanager
def mongodb() -> Iterator[Walk]:
    with MongoServer() as server:

        def add(first: int, last: int) -> None:
            documents = [{"_id": n, "id": n, "name": name_of(n)} for n in range(first, last + 1)]
            with closing(server.client()) as client:
                client["shop"]["items"].insert_many(documents)

        draft = {
            "type": "MONGODB",
            "host": server.host,
            "port": server.port,
            "database": "shop",
            "sslEnabled": False,
        }
        yield Walk(draft, "shop.items", add)


@contextmanager
def dynamodb() -> Iterator[Walk]:
    with DynamoServer() as server:
        server.create_table("items", "id:N")

        def add(first: int, last: int) -> None:
            items = [
                {"id": {"N": str(n)}, "name": {"S": name_of(n)}} for n in range(first, last + 1)
            ]
            server.put("items", items)

        draft = {
            "type": "DYNAMODB",
            "credentials": {"accessKeyId": ACCESS_KEY_ID, "secretAccessKey": "open sesame"},
            "metadata": {"region": REGION, "endpointOverride": server.url},
        }
        yield Walk(draft, "items", add)


@contextmanager
def kafka() -> Iterator[Walk]:
    with KafkaServer({"reader": "open sesame"}) as server:
        server.create_topic("items", 2)
        server.allow("reader", AclOperation.READ, "items")

        def add(first: int, last: int) -> None:
            rows = ({"id": n, "name": name_of(n)} for n in range(first, last + 1))
            server.produce("items", ((b"%d" % row["id"], json.dumps(row).encode()) for row in rows))

        draft = {
            "type": "KAFKA",
            "host": "127.0.0.1",
            "port": server.port,
            "credentials": {"username": "reader", "password": "open sesame"},
            "sslEnabled": False,
        }
        yield Walk(draft, "items", add, cursor="_offset")


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
        yield Walk(draft, "items", _adds_to(api))


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
        yield Walk(draft, "items", _adds_to(api), cursor=None, incremental=False)


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
        yield Walk(draft, "items", _adds_files_to(server), cursor=None, incremental=True)


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
        yield Walk(draft, "items", _adds_files_to(server), cursor=None, incremental=True)


@contextmanager
def gcs() -> Iterator[Walk]:
    with GcsServer() as server, GoogleGate(server.url) as gate:
        server.create_bucket("lake")
        draft = {
            "type": "GCS",
            "credentials": {"serviceAccountKey": gate.key_file()},
            "metadata": {"bucket": "lake", "prefix": "shop", "endpointOverride": gate.url},
        }
        yield Walk(draft, "items", _adds_files_to(server), cursor=None, incremental=True)


def _adds_files_to(server: S3Server | AzuriteServer | GcsServer) -> Callable[[int, int], None]:
    def add(first: int, last: int) -> None:
        numbers = range(first, last + 1)
        rows = {"id": list(numbers), "name": [name_of(n) for n in numbers]}
        out = io.BytesIO()
        pq.write_table(pa.table(rows), out)
        server.put("lake", f"shop/items/{first}.parquet", out.getvalue())

    return add


def _adds_to(api: HttpApis) -> Callable[[int, int], None]:
    def add(first: int, last: int) -> None:
        api.records += [{"id": n, "name": name_of(n)} for n in range(first, last + 1)]

    return add


WALKS = {
    "POSTGRESQL": postgresql,
    "MYSQL": mysql,
    "REDSHIFT": redshift,
    "SNOWFLAKE": snowflake_,
    "MONGODB": mongodb,
    "DYNAMODB": dynamodb,
    "KAFKA": kafka,
    "REST": rest,
    "GRAPHQL": graphql,
    "S3": s3,
    "AZURE_BLOB": azure_blob,
    "GCS": gcs,
}
