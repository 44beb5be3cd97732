"""Options of an object store: those of obstore and Polars, and no secret of them is shown."""

from __future__ import annotations

import json
import traceback
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap

from octogen_dagster import ParquetSnapshotIOManager
from octogen_dagster.errors import OctogenSnapshotError
from tests.servers.buckets import ENVIRONMENT, S3Bucket

SECRET = "wJalrXUtnFEMI/K7MDENG"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----"
FROM_ENVIRONMENT = {
    "aws_access_key_id": dg.EnvVar("STORE_KEY"),
    "aws_secret_access_key": dg.EnvVar("STORE_SECRET"),
    "aws_region": "eu-central-1",
}


def publish(manager: ParquetSnapshotIOManager) -> None:
    context = dg.build_output_context(asset_key="made")
    manager.handle_output(context, pl.DataFrame({"n": [1]}))


@pytest.mark.parametrize(
    "options",
    [
        {"google_service_account": "/etc/gcp/key.json"},
        {"google_application_credentials": "~/gcp/credentials.json"},
        {"aws_web_identity_token_file": "/var/run/secrets/token"},
        {"azure_federated_token_file": "/var/run/secrets/token"},
        {"aws_sse_kms_key_id": "arn:aws:kms:eu:1:key/2"},
        {"aws_skip_signature": True, "aws_endpoint_url": "http://127.0.0.1:1"},
        {"azure_storage_account_name": "account", "azure_tenant_id": "t"},
        FROM_ENVIRONMENT,
    ],
    ids=str,
)
def test_a_place_or_a_kind_of_credentials_is_accepted(options: dict[str, Any]) -> None:
    manager = ParquetSnapshotIOManager(base_dir="s3://bucket", storage_options=options)
    assert manager.storage_options == options


def test_the_ui_is_given_the_names_of_the_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_KEY", SECRET)
    monkeypatch.setenv("STORE_SECRET", SECRET)
    manager = ParquetSnapshotIOManager(base_dir="s3://bucket", storage_options=FROM_ENVIRONMENT)
    definitions = dg.Definitions(resources={"io_manager": manager})
    snap = dg.serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    assert "STORE_SECRET" in snap
    assert SECRET not in json.dumps(snap)


def test_a_variable_that_is_not_set_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("STORE_KEY", raising=False)
    manager = ParquetSnapshotIOManager(base_dir="s3://bucket", storage_options=FROM_ENVIRONMENT)
    with pytest.raises(OctogenSnapshotError, match=r"variable STORE_KEY in .* is not set"):
        publish(manager)


@pytest.mark.parametrize(
    ("url", "option"),
    [
        ("s3://bucket", "aws_regoin"),
        ("gs://bucket", "endpoint_url"),
        ("az://container", "connection_string"),
    ],
)
def test_an_option_that_is_not_known_is_named(
    url: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VALUE", "1")
    options = {"google_bearer_token": dg.EnvVar("VALUE"), option: dg.EnvVar("VALUE")}
    if url != "gs://bucket":
        del options["google_bearer_token"]
    manager = ParquetSnapshotIOManager(base_dir=url, storage_options=options)
    with pytest.raises(ValueError, match=rf"storage option '{option}' is not supported.*obstore"):
        publish(manager)


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
def test_a_secret_is_in_no_error(bucket: S3Bucket) -> None:
    bucket.proxy.is_denied = True
    with pytest.raises(OctogenSnapshotError, match="cannot be read") as caught:
        publish(bucket.io_manager())
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(value in shown for value in ENVIRONMENT.values())
    # A secret that an error quotes, as that of a wrong address would.
    options = bucket.options | {"aws_endpoint_url": "http://127.0.0.1:1/wJalrXUtnFEMI"}
    with pytest.raises(OctogenSnapshotError, match=r"cannot be read: .*/\*\*\*/") as caught:
        publish(bucket.io_manager(storage_options=options))
    assert "wJalrXUtnFEMI" not in str(caught.value)


@pytest.mark.parametrize("bucket", ["s3"], indirect=True)
@pytest.mark.parametrize(
    "options",
    [
        {"http1_only": "true", "pool_idle_timeout": "30s"},
        {"pool_max_idle_per_host": "4", "default_content_type": "application/octet-stream"},
        {"randomize_addresses": "false", "connect_timeout": "5s"},
    ],
    ids=str,
)
def test_options_of_the_connection_are_taken(bucket: S3Bucket, options: dict[str, str]) -> None:
    publish(bucket.io_manager(storage_options=bucket.options | options))
    assert bucket.names() == ["snapshots/made.parquet"]
