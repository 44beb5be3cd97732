"""Where Polars reads a snapshot in a bucket: by its own reader, as fsspec's file system would.

The two have different options. The credentials are asked of the file system itself, so they are the
ones that wrote the snapshot.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from upath import UPath

    Credentials = tuple[dict[str, str], int]

_CREDENTIALS_SECONDS = 240
"""Both file systems renew credentials at least 5 minutes before they expire."""
_S3_OPTIONS = {"anon", "key", "secret", "token", "endpoint_url", "profile", "client_kwargs"}
_S3_CLIENT_OPTIONS = {
    *("aws_access_key_id", "aws_secret_access_key", "aws_session_token"),
    *("endpoint_url", "region_name"),
}
_GCS_OPTIONS = {"token", "project", "endpoint_url"}


@dataclass(frozen=True)
class PolarsSource:
    """The arguments by which Polars finds a Parquet file.

    Attributes:
        source: The URL of an object, or the whole content of the file.
        storage_options: Options of Polars' reader.
        credential_provider: Returns credentials for Polars' reader, and until when they are valid
            in seconds since 1970; None if the options say it all.
    """

    source: str | bytes
    storage_options: dict[str, Any] = field(default_factory=dict)
    credential_provider: Callable[[], Credentials] | None = None

    def scan(self) -> pl.LazyFrame:
        """Return the file as a lazy frame. Polars reads its footer when it needs the schema."""
        return pl.scan_parquet(
            self.source,
            glob=False,
            storage_options=self.storage_options,
            credential_provider=self.credential_provider,
        )

    def read_metadata(self) -> dict[str, str]:
        """Read the key-value metadata of the file."""
        source = BytesIO(self.source) if isinstance(self.source, bytes) else self.source
        return pl.read_parquet_metadata(
            source,
            storage_options=self.storage_options,
            credential_provider=self.credential_provider,
        )


def polars_source(path: UPath) -> PolarsSource:
    """Return how Polars reads an object, of which it requests only the parts that it needs.

    A store that Polars does not know, or an option that has no counterpart, lets the whole object
    be downloaded here.

    Args:
        path: The path of an object.

    Raises:
        Exception: The object has to be downloaded, and the store fails.
    """
    translated = None
    if path.protocol in ("s3", "s3a"):
        translated = _s3(path.fs, path.storage_options)
    elif path.protocol in ("gs", "gcs"):
        translated = _gcs(path.fs, path.storage_options)
    if translated is None:
        return PolarsSource(path.read_bytes())
    return PolarsSource(f"{path.protocol}://{path.path}", *translated)


def _s3(fs: Any, options: Mapping[str, Any]) -> tuple[Any, ...] | None:
    client_options = options.get("client_kwargs", {})
    if not (options.keys() <= _S3_OPTIONS and client_options.keys() <= _S3_CLIENT_OPTIONS):
        return None
    endpoint, region = fs.s3.meta.endpoint_url, client_options.get("region_name")
    translated = {}
    if not (urlsplit(endpoint).hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
        region = region or fs.s3.meta.region_name
        translated = {"aws_endpoint_url": endpoint}
        if endpoint.startswith("http:"):
            translated["aws_allow_http"] = "true"
    if region:  # without one, Polars asks AWS for the bucket's
        translated["aws_region"] = region
    if fs.anon:
        return {**translated, "aws_skip_signature": "true"}, None
    key = {
        "aws_access_key_id": fs.key or client_options.get("aws_access_key_id"),
        "aws_secret_access_key": fs.secret or client_options.get("aws_secret_access_key"),
        "aws_session_token": fs.token or client_options.get("aws_session_token"),
    }
    if key["aws_access_key_id"]:
        return translated | {name: value for name, value in key.items() if value}, None
    return translated, lambda: _s3_credentials(fs)


def _s3_credentials(fs: Any) -> Credentials:
    """The credentials that botocore finds, in the environment, a profile or on the machine."""
    from fsspec.asyn import sync

    async def find() -> Any:
        credentials = await fs.session.get_credentials()
        return credentials and await credentials.get_frozen_credentials()

    found = sync(fs.loop, find)
    if found is None:
        raise PermissionError("no credentials for S3 were found")
    key = {
        "aws_access_key_id": found.access_key,
        "aws_secret_access_key": found.secret_key,
        "aws_session_token": found.token,
    }
    return {name: value for name, value in key.items() if value}, _valid_until()


def _gcs(fs: Any, options: Mapping[str, Any]) -> tuple[Any, ...] | None:
    if not options.keys() <= _GCS_OPTIONS:
        return None
    endpoint = fs.base.removesuffix("/storage/v1/")
    translated = {"google_base_url": endpoint}
    if endpoint.startswith("http:"):
        translated["allow_http"] = "true"
    if fs.credentials.credentials is None:
        return {**translated, "google_skip_signature": "true"}, None
    return translated, lambda: _gcs_credentials(fs)


def _gcs_credentials(fs: Any) -> Credentials:
    fs.credentials.maybe_refresh()
    credentials = fs.credentials.credentials
    return {"bearer_token": credentials.token}, _valid_until()


def _valid_until() -> int:
    return int(time.time()) + _CREDENTIALS_SECONDS
