from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from google.oauth2.credentials import Credentials
from upath import UPath

from octogen_dagster.snapshots.polars_source import polars_source
from tests.snapshots.stores import Store


def source_of(url: str, **options: Any) -> Any:
    return polars_source(UPath(url, **options))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the developer's own settings of AWS out of a test."""
    pytest.importorskip("s3fs", reason="needs the extra s3")
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("aws")
@pytest.mark.parametrize(
    ("options", "translated"),
    [
        ({"anon": True}, {"aws_skip_signature": "true"}),
        (
            {"key": "k", "secret": "s", "token": "t"},
            {
                "aws_access_key_id": "k",
                "aws_secret_access_key": "s",
                "aws_session_token": "t",
            },
        ),
        (
            {"anon": True, "client_kwargs": {"region_name": "eu-central-1"}},
            {"aws_skip_signature": "true", "aws_region": "eu-central-1"},
        ),
        (
            {
                "client_kwargs": {
                    "endpoint_url": "http://127.0.0.1:9000",
                    "aws_access_key_id": "k",
                    "aws_secret_access_key": "s",
                }
            },
            {
                "aws_endpoint_url": "http://127.0.0.1:9000",
                "aws_allow_http": "true",
                "aws_region": "us-east-1",
                "aws_access_key_id": "k",
                "aws_secret_access_key": "s",
            },
        ),
    ],
)
def test_options_of_s3_are_translated(options: dict[str, Any], translated: dict[str, Any]) -> None:
    source = source_of("s3://bucket/a/x.parquet", **options)
    assert (source.source, source.storage_options) == ("s3://bucket/a/x.parquet", translated)
    assert source.credential_provider is None


@pytest.mark.usefixtures("aws")
def test_credentials_of_s3_are_those_that_botocore_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "from the environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    source = source_of("s3://bucket/x.parquet", client_kwargs={"region_name": "eu-west-1"})
    assert source.storage_options == {"aws_region": "eu-west-1"}
    credentials, valid_until = source.credential_provider()
    assert credentials["aws_access_key_id"] == "from the environment"
    assert valid_until > 1_700_000_000  # seconds, not milliseconds or a duration


def test_polars_requests_carry_the_credentials_of_the_file_system(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pl.DataFrame({"n": [1]}).write_parquet(tmp_path / "x.parquet")
    path = store.path("x.parquet")
    path.write_bytes((tmp_path / "x.parquet").read_bytes())
    if store.protocol == "s3":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDENVIRONMENT")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        options, sent = {"endpoint_url": store.options["endpoint_url"]}, b"AKIDENVIRONMENT"
    else:
        token = Credentials("ya29.token")  # type: ignore[no-untyped-call]
        options, sent = {**store.options, "token": token}, b"Bearer ya29.token"
    source = source_of(str(path), **options)
    store.proxy.heads.clear()
    assert source.scan().collect()["n"].to_list() == [1]
    assert store.proxy.heads
    assert all(sent in head for head in store.proxy.heads)


@pytest.mark.usefixtures("aws")
def test_an_option_that_polars_does_not_know_lets_the_file_be_downloaded(store: Store) -> None:
    path = store.path("x.parquet")
    path.write_bytes(b"the content")
    options = {**path.storage_options, "default_cache_type": "none"}
    if store.protocol == "gs":
        options = {**path.storage_options, "requester_pays": True}
    assert source_of(str(path), **options).source == b"the content"


def test_a_store_that_polars_does_not_know_lets_the_file_be_downloaded() -> None:
    path = UPath("memory://bucket/x.parquet")
    path.write_bytes(b"the content")
    assert polars_source(path).source == b"the content"
