"""A server that speaks `/v1/chat/completions`, answers as it is told and keeps all that it got."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answering = Callable[[str], object]


class ModelServer:
    """`answer` gets the user's message; what it returns is the model's content, as JSON unless it
    is text. Bytes go out as they are."""

    def __init__(self) -> None:
        self.answer: Answering = lambda _: {}
        self.received: list[bytes] = []
        self.asked: list[str] = []
        self.proceed = threading.Event()
        self.proceed.set()
        self.status = 200
        self.url = ""

    def reply(self, body: bytes) -> bytes:
        """The response's body."""
        asked = json.loads(body)["messages"][-1]["content"]
        self.asked.append(asked)
        content = self.answer(asked)
        if isinstance(content, bytes):
            return content
        text = content if isinstance(content, str) else json.dumps(content)
        return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """One on a free loopback port."""
    model = ModelServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            model.received.append(f"{self.path} {self.headers}".encode() + body)
            model.proceed.wait(30)
            reply = model.reply(body)
            self.send_response(model.status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        model.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield model
        finally:
            model.proceed.set()
            server.shutdown()
            thread.join()
