"""Storage options are refused for a secret that is written out, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from octogen_dagster import ParquetSnapshotIOManager

AWS = "/JalrXUtnFEMIxK7MDENGxbPxRfiCYEXAMPLEKEY"
AZURE = "/by8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
OAUTH = "ya29.a0AfH6SMBx"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    "options",
    [
        {"token": "/etc/gcp/credentials"},
        {"token": "~/gcp/credentials"},
        {"token": "../credentials"},
        {"token": "C:\\gcp\\credentials"},
        {"credential": "/etc/azure/credential"},
        {"auth_type": "anonymous"},
        {"authType": "anonymous"},
        {"key_file": "/x/y.pem"},
        {"key_file": "y.pem"},
        {"keyFilename": "id_rsa"},
        {"client_kwargs": {"token_path": "/var/run/secrets/token"}},
        {"token": {"type": "service_account"}},
    ],
    ids=str,
)
def test_a_place_or_a_kind_of_credentials_is_accepted(options: dict[str, Any]) -> None:
    io_manager = ParquetSnapshotIOManager(base_dir="s3://bucket", storage_options=options)
    assert io_manager.storage_options == options


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"token": OAUTH}, "token"),
        ({"secret": AWS}, "secret"),
        ({"aws_secret_access_key": AWS}, "aws_secret_access_key"),
        ({"account_key": AZURE}, "account_key"),
        ({"password": "/etc/passwd"}, "password"),
        ({"key_file": PEM}, "key_file"),
        ({"token": {"type": "service_account", "private_key": PEM}}, "token.private_key"),
        ({"connection_string": "/x/y"}, "connection_string"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_secret_that_is_written_out_stays_refused(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"The storage option {name} looks like a secret"):
        ParquetSnapshotIOManager(base_dir="s3://bucket", storage_options=options)
