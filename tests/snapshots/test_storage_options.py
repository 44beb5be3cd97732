from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster._core.remote_representation.external_data import RepositorySnap
from upath import UPath

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.snapshots.io_manager import ParquetSnapshotIOManager
from octogen_dagster.snapshots.snapshot_files import SnapshotFile
from octogen_dagster.snapshots.storage_options import (
    check_no_secrets,
    mask_secrets,
    resolve_options,
)

SECRET = "wJalrXUtnFEMI/K7MDENG"

FROM_ENVIRONMENT = {
    "key": dg.EnvVar("STORE_KEY"),
    "client_kwargs": {
        "endpoint_url": "http://127.0.0.1:1",
        "headers": [{"Authorization": dg.EnvVar("STORE_SECRET")}],
    },
}


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"key": SECRET}, "key"),
        ({"secret": SECRET}, "secret"),
        ({"token": SECRET}, "token"),
        ({"password": SECRET}, "password"),
        ({"account_key": SECRET}, "account_key"),
        ({"sas_token": SECRET}, "sas_token"),
        ({"connection_string": SECRET}, "connection_string"),
        ({"credential": SECRET}, "credential"),
        ({"client_secret": SECRET}, "client_secret"),
        ({"sas": SECRET}, "sas"),
        ({"endpoint_url": f"https://user:{SECRET.replace('/', '')}@host"}, "endpoint_url"),
        ({"token": {"type": "service_account", "private_key": SECRET}}, "token.private_key"),
        ({"client_kwargs": {"aws_secret_access_key": SECRET}}, "aws_secret_access_key"),
        ({"s3_additional_kwargs": {"SSECustomerKey": SECRET}}, "SSECustomerKey"),
        ({"client_kwargs": {"headers": [{"Authorization": SECRET}]}}, "Authorization"),
        ({"secret": SECRET.encode()}, "secret"),
        ({"secret": {"env": SECRET, "more": 1}}, "secret.env"),
    ],
)
def test_a_secret_is_refused_and_not_shown(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} looks like a secret.*dg\.EnvVar\(") as caught:
        ParquetSnapshotIOManager(base_dir="s3://bucket", storage_options=options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"token": "anon", "project": "p", "endpoint_url": "http://127.0.0.1:1"},
        {"token": "google_default"},
        {"token": "/etc/secrets/service-account.json"},
        {"anon": True, "key": None, "secret": ""},
        {"profile": "work", "client_kwargs": {"region_name": "eu-central-1"}},
        {"config_kwargs": {"signature_version": "s3v4", "s3": {"addressing_style": "path"}}},
        {"s3_additional_kwargs": {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "arn:aws:k"}},
        {"account_name": "account", "tenant_id": "t", "client_id": "c"},
        FROM_ENVIRONMENT,
    ],
)
def test_other_options_are_accepted(options: dict[str, Any]) -> None:
    check_no_secrets(options)


def test_secrets_are_read_from_the_environment_when_a_run_executes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, Any] = {}

    class Manager(ParquetSnapshotIOManager):
        def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
            seen.update(resolve_options(self.storage_options))

    @dg.asset
    def made() -> pl.DataFrame:
        return pl.DataFrame()

    manager = Manager(base_dir="s3://bucket", storage_options=FROM_ENVIRONMENT)
    resolved = {
        "key": "k",
        "client_kwargs": {
            "endpoint_url": "http://127.0.0.1:1",
            "headers": [{"Authorization": SECRET}],
        },
    }
    monkeypatch.setenv("STORE_KEY", "k")
    monkeypatch.setenv("STORE_SECRET", SECRET)
    dg.materialize([made], resources={"io_manager": manager})
    assert seen == resolved
    assert resolve_options(FROM_ENVIRONMENT) == resolved  # without Dagster's configuration


def test_the_ui_is_given_the_names_of_the_variables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORE_KEY", SECRET)
    monkeypatch.setenv("STORE_SECRET", SECRET)
    manager = ParquetSnapshotIOManager(base_dir="s3://bucket", storage_options=FROM_ENVIRONMENT)
    definitions = dg.Definitions(resources={"io_manager": manager})
    snap = dg.serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))
    assert "STORE_SECRET" in snap
    assert SECRET not in json.dumps(snap)


def test_a_variable_that_is_not_set_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORE_KEY", raising=False)

    @dg.asset
    def made() -> pl.DataFrame:
        return pl.DataFrame()

    manager = ParquetSnapshotIOManager(
        base_dir=str(tmp_path), storage_options={"key": dg.EnvVar("STORE_KEY")}
    )
    with pytest.raises(
        OctogenSnapshotError, match=r"variable STORE_KEY, which is not set\. Set it where the run"
    ):
        dg.materialize([made], resources={"io_manager": manager})


def test_secrets_are_masked_in_the_error_of_a_library() -> None:
    options = {"project": "p", "token": SECRET, "client_kwargs": {"aws_secret_access_key": "s3cr"}}
    text = f"p: /tokeninfo?access_token={SECRET.replace('/', '%2F')} and {SECRET}, s3cr"
    assert (
        mask_secrets(text, MappingProxyType(options))
        == "p: /tokeninfo?access_token=*** and ***, ***"
    )


@pytest.mark.parametrize(
    ("method", "use", "problem"),
    [
        ("info", SnapshotFile.exists, "cannot be read"),
        ("put_file", lambda file: file.publish(Path("x")), "could not be published"),
    ],
)
def test_a_store_that_quotes_a_secret_does_not_show_it(
    method: str,
    use: Callable[[SnapshotFile], object],
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_path: UPath, *_arguments: Any, **_options: Any) -> None:
        raise ConnectionError(f"Max retries exceeded with url: /tokeninfo?access_token={SECRET}")

    file = SnapshotFile(UPath("memory://bucket/x.parquet", token=SECRET))
    monkeypatch.setattr(type(file.path.fs), method, fail)
    with pytest.raises(OctogenSnapshotError, match=rf"{problem}.*: .*access_token=\*\*\*\.") as e:
        use(file)
    assert SECRET not in "".join(traceback.format_exception(e.value))
