"""What tests of the SQL gateway share: statements, and a session as a client has it."""

from __future__ import annotations

from tests.api.lab import Lab

PLAIN_SOURCE = """CREATE TEMPORARY TABLE numbers (n BIGINT) WITH (
  'connector' = 'datagen', 'rows-per-second' = '5')"""
TARGET = "CREATE TEMPORARY TABLE nowhere (n BIGINT) WITH ('connector' = 'blackhole')"
INSERT = "INSERT INTO nowhere SELECT n FROM numbers"


class Talk:
    """A session, as a client has it."""

    def __init__(self, lab: Lab, version: str = "v1", **body: object) -> None:
        self.lab, self.version = lab, version
        answer = lab.client.request("POST", f"/{version}/sessions", json=body)
        assert answer.status_code == 200, answer.text
        self.handle = answer.json()["sessionHandle"]
        self.path = f"/{version}/sessions/{self.handle}"

    def send(self, statement: str, **more: object):
        body = {"statement": statement, **more}
        return self.lab.client.request("POST", f"{self.path}/statements", json=body)

    def run(self, statement: str, **more: object) -> dict:
        """The first page of the answer."""
        answer = self.send(statement, **more)
        assert answer.status_code == 200, answer.text
        self.operation = f"{self.path}/operations/{answer.json()['operationHandle']}"
        status = self.lab.client.get(f"{self.operation}/status")
        assert status.json() == {"status": "FINISHED"}
        return self.lab.client.get(f"{self.operation}/result/0{self._format}").json()

    @property
    def _format(self) -> str:
        return "" if self.version == "v1" else "?rowFormat=JSON"


def rows(page: dict) -> list[list]:
    return [row["fields"] for row in page["results"]["data"]]


def refusal(answer) -> str:
    """The only error of an answer in Flink's form."""
    assert list(answer.json()) == ["errors"], answer.text
    (error,) = answer.json()["errors"]
    return error
