"""The lab's application behind a real HTTP server on loopback, for clients in other processes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from tests.api.lab import Lab


@contextmanager
def serving(app) -> Iterator[str]:
    """Serve an ASGI application on a free loopback port; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def token_of(lab: Lab, *roles, **who) -> str:
    return lab.as_(*roles, **who)["Authorization"].removeprefix("Bearer ")
