"""Buckets for tests: in moto's S3 and in `GoogleStorage`, each behind a proxy."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx

from octogen_dagster import ParquetSnapshotIOManager
from tests.proxy import Proxy
from tests.servers.gcs import TOKEN, GoogleStorage

ENVIRONMENT = {"STORE_KEY": "AKIDTESTKEY", "STORE_SECRET": "wJalrXUtnFEMI", "STORE_TOKEN": TOKEN}


class S3Bucket:
    """An empty bucket of moto."""

    scheme = "s3"

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.name = f"catalogs-{uuid.uuid4().hex[:8]}"
        url = f"http://127.0.0.1:{proxy.port}"
        self.options: dict[str, Any] = {
            "aws_access_key_id": dg.EnvVar("STORE_KEY"),
            "aws_secret_access_key": dg.EnvVar("STORE_SECRET"),
            "aws_endpoint_url": url,
            "aws_allow_http": True,
            "aws_region": "us-east-1",
        }
        self._s3 = self._client(f"http://127.0.0.1:{proxy.upstream}")
        self._s3.create_bucket(Bucket=self.name)

    @staticmethod
    def _client(url: str) -> Any:
        import boto3

        keys = {"aws_access_key_id": "AKIDTESTKEY", "aws_secret_access_key": "wJalrXUtnFEMI"}
        return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)

    def names(self) -> list[str]:
        listed = self._s3.list_objects_v2(Bucket=self.name).get("Contents", [])
        return sorted(each["Key"] for each in listed)

    def get(self, name: str) -> bytes:
        content: bytes = self._s3.get_object(Bucket=self.name, Key=name)["Body"].read()
        return content

    def put(self, name: str, content: bytes) -> None:
        self._s3.put_object(Bucket=self.name, Key=name, Body=content)

    def buckets(self) -> list[str]:
        return [each["Name"] for each in self._s3.list_buckets()["Buckets"]]

    @property
    def base_dir(self) -> str:
        return f"{self.scheme}://{self.name}/snapshots"

    def io_manager(self, **settings: Any) -> ParquetSnapshotIOManager:
        return ParquetSnapshotIOManager(
            **{"base_dir": self.base_dir, "storage_options": self.options, **settings}
        )


class GoogleBucket(S3Bucket):
    """An empty bucket of `GoogleStorage`."""

    scheme = "gs"

    def __init__(self, proxy: Proxy, storage: GoogleStorage) -> None:
        self.proxy = proxy
        self.name = f"catalogs-{uuid.uuid4().hex[:8]}"
        self.options = {
            "google_bearer_token": dg.EnvVar("STORE_TOKEN"),
            "google_base_url": f"http://127.0.0.1:{proxy.port}",
            "allow_http": "true",
        }
        self._storage = storage
        storage.buckets[self.name] = {}

    def names(self) -> list[str]:
        return sorted(self._storage.buckets[self.name])

    def get(self, name: str) -> bytes:
        return self._storage.buckets[self.name][name].content

    def put(self, name: str, content: bytes) -> None:
        url = f"http://127.0.0.1:{self._storage.port}/{self.name}/{name}"
        httpx.put(url, content=content, headers={"authorization": f"Bearer {TOKEN}"})

    def buckets(self) -> list[str]:
        return list(self._storage.buckets)


@contextlib.contextmanager
def moto() -> Iterator[Proxy]:
    """Run moto's S3 in a process of its own, behind a proxy."""
    command = [sys.executable, str(Path(__file__).with_name("s3.py"))]
    with (
        Proxy() as proxy,
        subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        lines = process.stderr
        assert lines
        try:
            line = next(line for line in lines if "Running on" in line)
            # The server would wait for a reader of its log once the pipe is full.
            threading.Thread(target=lambda: deque(lines, maxlen=0), daemon=True).start()
            proxy.upstream = int(line.rsplit(":", 1)[1].strip().rstrip("/"))
            yield proxy
        finally:
            process.kill()
