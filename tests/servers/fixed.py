"""A server of fixed answers, in a process: some libraries hold the interpreter while they wait."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.forked import processes

Answer = tuple[int, str, bytes]
"""A status, a type and a body."""
HTML: Answer = (200, "text/html", b"<!DOCTYPE html><html><body>Please sign in.</body></html>")
"""What a proxy that wants a sign-in answers, whatever it is asked."""


def json_answer(status: int, body: Any) -> Answer:
    """An answer in JSON."""
    return status, "application/json", json.dumps(body).encode()


@contextmanager
def answering(
    log: Path, default: Answer, answers: Mapping[str, Answer]
) -> Iterator[tuple[str, Callable[[], list[str]]]]:
    """Run a server of answers by `METHOD /path`: its address, and what lists the requests."""
    ports = processes.SimpleQueue()
    server = processes.Process(target=_serve, args=(ports, log, default, answers))
    server.start()
    try:
        yield f"http://127.0.0.1:{ports.get()}", lambda: log.read_text().splitlines()
    finally:
        server.kill()
        server.join()


def _serve(ports: Any, log: Path, default: Answer, answers: Mapping[str, Answer]) -> None:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            request = f"{self.command} {self.path.partition('?')[0]}"
            with log.open("a") as file:
                file.write(f"{request}\n")
            status, kind, body = answers.get(request, default)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    ports.put(server.server_port)
    server.serve_forever()
