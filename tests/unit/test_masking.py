"""Secrets of settings are recognized, refused where they are written out, and in no error."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from octogen_dagster import ParquetSnapshotIOManager
from octogen_dagster.control_plane.login_places import LoginPlaces
from octogen_dagster.masking import masked
from octogen_dagster.tables import DeltaTables, IcebergTables, PostgresTables, SnowflakeTables
from octogen_dagster.tables.duckdb import DuckDBTables

WORD = st.text(string.ascii_letters + string.digits, min_size=6, max_size=10)
SECRETS = st.lists(WORD, min_size=1, max_size=3).flatmap(
    lambda words: st.sampled_from(" @:/%+&=?'\"\\\n").map(lambda between: between.join(words))
)
SPELLINGS: list[Callable[[str], str]] = [
    *(str, quote, lambda text: quote(text, safe="")),
    *(unquote, repr, lambda text: text.rpartition("@")[2], lambda text: text.partition("/")[0]),
]


@given(SECRETS, st.sampled_from(SPELLINGS), st.sampled_from(['"{}"', "at {}:", "x={};", "'{}'"]))
def test_a_secret_is_masked_in_each_spelling(
    secret: str, spelling: Callable[[str], str], within: str
) -> None:
    text = masked(f"could not reach {within.format(spelling(secret))} in time", [secret])
    words = re.findall(r"[A-Za-z0-9]{6,}", secret)
    assert not [word for word in words if word in text]
    assert text.startswith("could not reach ")
    assert text.endswith(" in time")


@given(SECRETS.filter(lambda secret: "\n" not in secret))
def test_no_destination_shows_a_secret_of_its_settings(secret: str) -> None:
    words = re.findall(r"[A-Za-z0-9]{6,}", secret)
    encoded = quote(secret, safe="")
    destinations: list[Any] = [
        PostgresTables(uri=f"postgresql://me:{encoded}@db.example/shop"),
        PostgresTables(uri=f"postgresql://db.example/shop?password={encoded}"),
        DuckDBTables(database=f"ducklake:postgres:dbname=lake password='{secret}'"),
        DuckDBTables(database=f"md:lake?motherduck_token={secret}"),
        SnowflakeTables(account="a", user="u", database="d", password=secret),
        DeltaTables(
            base_dir="s3://lake", storage_options={"aws_secret_access_key": dg.EnvVar("A")}
        ),
        IcebergTables(warehouse="lake", properties={"s3.secret-access-key": dg.EnvVar("A")}),
    ]
    for destination in destinations:
        text = masked(f"no {secret} {encoded} {secret!r} there", _with(destination, secret).secrets)
        shown = f"{text} {destination!r} {destination.place} {destination.pool}"
        assert not [word for word in words if word in shown], destination


def _with(destination: Any, secret: str) -> Any:
    """A destination whose variable has a secret."""
    for name in ("storage_options", "properties"):
        if options := getattr(destination, name, None):
            return destination.model_copy(update={name: dict.fromkeys(options, secret)})
    return destination


@pytest.mark.parametrize(
    "url",
    [
        "s3://KEY:wJalr@bucket/lake",
        "s3://KEY:wJ/wJalr@bucket",
        "s3://AKIAwJalr@bucket/lake",
        "gs://AKIAwJalr@bucket",
        "gs://bucket/lake?token=wJalr",
        "https://account.blob.core.windows.net/lake?sv=1&sig=wJalr",
        "az://lake?sig=wJalr",
        "abfss://lake:wJalr@account.dfs.core.windows.net/lake",
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        lambda url: ParquetSnapshotIOManager(base_dir=url),
        lambda url: DeltaTables(base_dir=url),
        lambda url: IcebergTables(warehouse=url),
        lambda url: LoginPlaces.at(token_uri=f"{url}/login"),
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_repeated(
    place: Callable[[str], object], url: str
) -> None:
    with pytest.raises(ValueError, match=r"The URL in|in its URL") as raised:
        place(url)
    assert "wJalr" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["abfss://lake@account.dfs.core.windows.net/a", "az://lake", "s3://b"]
)
def test_a_url_of_a_container_and_its_account_is_accepted(url: str) -> None:
    assert DeltaTables(base_dir=url).base_dir == ParquetSnapshotIOManager(base_dir=url).base_dir
    assert IcebergTables(warehouse=url).warehouse == url


@pytest.mark.parametrize("place", ["ftp://lake", "s3://", "", " ", "s3:///lake"])
def test_a_lake_of_no_store_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match="base_dir"):
        DeltaTables(base_dir=place)
    if place in {"s3://", "", " "}:
        with pytest.raises(ValueError, match="warehouse is empty"):
            IcebergTables(warehouse=place)


SNOWFLAKE = {"account": "a", "user": "u", "database": "d"}
CLIENT_OPTION = "adbc.snowflake.sql.client_option"


@pytest.mark.parametrize("path", ["/run/secrets/key.p8", "key.pem", r"C:\keys\key.p8"])
def test_a_driver_option_may_name_the_file_of_a_key(path: str) -> None:
    options = {f"{CLIENT_OPTION}.jwt_private_key": path}
    assert SnowflakeTables(**SNOWFLAKE, driver_options=options).driver_options == options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"{CLIENT_OPTION}.jwt_private_key", "-----BEGIN PRIVATE KEY-----\nwJalr"),
        (f"{CLIENT_OPTION}.jwt_private_key", "MIIEvQIBADANBgkqwJalr"),
        (f"{CLIENT_OPTION}.jwt_private_key_pkcs8_value", "wJalr"),
        (f"{CLIENT_OPTION}.jwt_private_key_pkcs8_password", "wJalr"),
        (f"{CLIENT_OPTION}.auth_token", "wJalr"),
        ("password", "wJalr"),
    ],
)
def test_a_secret_among_driver_options_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="looks like a secret") as raised:
        SnowflakeTables(**SNOWFLAKE, driver_options={name: value})
    assert "wJalr" not in str(raised.value)
