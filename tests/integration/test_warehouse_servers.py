"""The servers that stand for warehouses start, answer on loopback only, and end."""

import json
import urllib.request

import psutil

from matih_ray.testing.devstack.bigquery import BigQueryServer
from matih_ray.testing.devstack.python_servers import environment
from matih_ray.testing.devstack.snowflake import SnowflakeServer


def listening(pid: int) -> set[tuple[str, int]]:
    found = psutil.Process(pid).net_connections(kind="inet")
    # gRPC listens with sockets of IPv6, to IPv4 addresses
    return {
        (c.laddr.ip.removeprefix("::ffff:"), c.laddr.port)
        for c in found
        if c.status == psutil.CONN_LISTEN
    }


def answer(url: str, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def test_snowflake_logs_in_and_ends_when_stopped():
    with SnowflakeServer() as server:
        pid = server._server.pid
        ports = listening(pid)
        login = f"http://{server.host}:{server.port}/session/v1/login-request"
        body = {"data": {"ACCOUNT_NAME": "a", "LOGIN_NAME": "u", "SESSION_PARAMETERS": {}}}
        found = answer(login, body)
    assert found["success"] is True
    assert ports == {(server.host, server.port)}
    assert not psutil.pid_exists(pid)


def test_bigquery_answers_a_query_and_ends_when_stopped():
    with BigQueryServer() as server:
        pid = server._server.pid
        ports = listening(pid)
        queries = f"http://{server.host}:{server.port}/bigquery/v2/projects/shop/queries"
        found = answer(queries, {"query": "SELECT 1 AS one", "useLegacySql": False})
    assert found["rows"] == [{"f": [{"v": "1"}]}]
    assert ports == {(server.host, server.port), (server.host, server.grpc_port)}
    assert not psutil.pid_exists(pid)


def test_an_environment_is_made_once():
    python = environment("fakesnow") / "python"
    made = python.lstat().st_ctime_ns
    assert environment("fakesnow") / "python" == python
    assert python.lstat().st_ctime_ns == made
