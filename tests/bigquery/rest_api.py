"""BigQuery on loopback: the emulator, and a server whose responses a test writes."""

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

import pytest
from dagster_gcp import BigQueryResource
from google.cloud.bigquery import Client

PROJECT = "my-project"
ENVIRONMENT = os.environ.get("LOCAL_BIGQUERY")
"""The folder that `emulator.sh` made."""

_START_TIMEOUT = 60
_STOP_TIMEOUT = 20
_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")

Answer = Callable[[str, str, dict[str, Any]], tuple[int, dict[str, Any]]]


@contextlib.contextmanager
def running_emulator(folder: Path, grpc_port: int = 0) -> Iterator[str]:
    """Run the emulator without any data.

    Args:
        folder: The folder for its data.
        grpc_port: The port of its Storage Read API; 0 for any.

    Yields:
        Its address.
    """
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [
                f"{ENVIRONMENT}/bin/local-bigquery",
                *("--host", "127.0.0.1", "--port", "0", "--grpc-port", str(grpc_port)),
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
    """Run a server whose responses a test writes. It gives out access tokens as well.

    Args:
        answer: A function from the method, path and body of a request to a status and a body.

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
    """The response of BigQuery to a request that it refuses."""
    errors = [{"reason": reason, "message": message, "domain": "global"}]
    return code, {"error": {"code": code, "message": message, "errors": errors}}


def environment(bigquery: str, token_server: str, folder: Path) -> dict[str, str]:
    """The environment variables that connect Google's libraries to a BigQuery on loopback.

    Args:
        bigquery: The address of BigQuery.
        token_server: The address of the server that gives out access tokens.
        folder: The folder for the file with a throw-away key.
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


@contextlib.contextmanager
def connected(answer: Answer, folder: Path) -> Iterator[Client]:
    """Connect a client to a server whose responses a test writes.

    Args:
        answer: As for `answering`.
        folder: The folder for the key file.
    """
    with answering(answer) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(server, server, folder).items():
            patch.setenv(name, value)
        with BigQueryResource(project=PROJECT).get_client() as client, contextlib.closing(client):
            yield client


def silent_once(
    silent: str, requests: list[str], answer: Callable[[str], tuple[int, dict[str, Any]]]
) -> Answer:
    """A server that does not respond to the first request of a path, and refuses the others.

    Args:
        silent: The end of the path.
        requests: Takes the paths of these requests.
        answer: A function from any other path to a response.
    """
    given_up = threading.Event()

    def respond(_method: str, path: str, _body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        path = path.partition("?")[0]
        if not path.endswith(silent):
            return answer(path)
        requests.append(path)
        if len(requests) == 1:
            given_up.wait(20)
        given_up.set()
        return refused(404, "notFound", "gone")

    return respond


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
