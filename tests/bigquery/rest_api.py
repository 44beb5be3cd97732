"""BigQuery on loopback: the emulator, a server that answers as it is told to, and credentials."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PROJECT = "my-project"
ENVIRONMENT = os.environ.get("LOCAL_BIGQUERY")
"""The folder that `bigquery_emulator.sh` made."""

_START_TIMEOUT = 60
_STOP_TIMEOUT = 20
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")

Answer = Callable[[str, str, dict[str, Any]], tuple[int, dict[str, Any]]]


@contextlib.contextmanager
def running_emulator(folder: Path) -> Iterator[str]:
    """Run the emulator with nothing in it.

    Args:
        folder: Where it may keep its data.

    Yields:
        Its address.
    """
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [
                f"{ENVIRONMENT}/bin/local-bigquery",
                *("--host", "127.0.0.1", "--port", "0", "--grpc-port", "0"),
                *("--project", PROJECT, "--data-dir", str(folder / "data")),
            ],
            env={**os.environ, "HOME": str(ENVIRONMENT)},  # where its DuckDB finds extensions
            stdout=output,
            stderr=output,
        )
    try:
        yield _address(server, log)
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        if found := _ADDRESS.search(log.read_text()):
            return found.group()
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The emulator did not start:\n{log.read_text()}")
        time.sleep(0.1)


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server whose answers to BigQuery's calls a test gives; it also gives out access tokens.

    Args:
        answer: From method, path and body of a request to status and body.

    Yields:
        Its address.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            if self.path == "/token":
                status, said = 200, {"access_token": "token", "expires_in": 3600}
            else:
                status, said = answer(self.command, self.path, json.loads(body or b"{}"))
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refused(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    """An answer of BigQuery that refuses."""
    errors = [{"reason": reason, "message": message, "domain": "global"}]
    return code, {"error": {"code": code, "message": message, "errors": errors}}


def environment(bigquery: str, token_server: str, folder: Path) -> dict[str, str]:
    """What lets Google's libraries talk to a BigQuery on loopback, with a throw-away key.

    Args:
        bigquery: Its address.
        token_server: The address that gives out access tokens.
        folder: Where the key file may be kept.
    """
    key = {
        "type": "service_account",
        "client_email": f"tests@{PROJECT}.iam.gserviceaccount.com",
        "private_key": _private_key(),
        "project_id": PROJECT,
        "token_uri": f"{token_server}/token",
    }
    file = folder / "key.json"
    file.write_text(json.dumps(key))
    return {
        "BIGQUERY_EMULATOR_HOST": bigquery,
        "GOOGLE_APPLICATION_CREDENTIALS": str(file),
        "NO_GCE_CHECK": "true",
    }


@functools.cache
def _private_key() -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return (
        rsa.generate_private_key(public_exponent=65537, key_size=2048)
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        .decode()
    )
