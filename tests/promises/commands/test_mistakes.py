"""A wrong argument is refused where it is written, by a text that names it and shows no secret."""

from __future__ import annotations

import re
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner

import octogen_dagster as o
from octogen_dagster import alerts, tables
from octogen_dagster.bigquery.partitions import listing_of, listing_partition_key
from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.partitions import catalog_partition_key
from tests.api.servers import KEY

GOLDEN = Path(__file__).parents[2] / "golden" / "mistakes.txt"
SECRET = "wJalrXUtnFEMI-K7MDENG"
LISTING = "projects/octo/locations/us/dataExchanges/e/listings/acme"
PEM = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----"


@dg.multi_asset(specs=[dg.AssetSpec("a"), dg.AssetSpec("b")])
def several() -> tuple[None, None]:
    return None, None


@dg.asset(partitions_def=o.catalog_partitions)
def mine() -> None: ...


PRODUCTS = o.build_products_asset("products")
HISTORY = o.build_product_history_asset(PRODUCTS)
URL_LIST = o.build_url_list_asset("q3", PRODUCTS)
EXPORT = o.build_url_list_export_asset(URL_LIST)
OWN = pl.DataFrame({"sku": "1", "product_url": "a", "price": 129.9, "currency": "EUR"})

NAMES: dict[str, Any] = {
    **{name: getattr(o, name) for name in o.__all__},
    **{name: getattr(room, name) for room in (alerts, tables) for name in dir(room)},
    **{each.__name__: each for each in (catalog_partition_key, listing_of, listing_partition_key)},
    "dg": dg,
    "KEY": KEY,
    "SECRET": SECRET,
    "PEM": PEM,
    "ME": "user:me@example.com",
    "timedelta": timedelta,
    "Sandbox": Sandbox,
    "Fault": Fault,
    "LISTING": LISTING,
    "pl": pl,
    "OWN": OWN,
    "PRODUCTS": PRODUCTS,
    "CATALOGS": o.build_catalogs_asset(),
    "HISTORY": HISTORY,
    "ALERTS": o.build_price_alerts_asset(HISTORY, [alerts.PriceDropped()]),
    "DATASETS": o.build_linked_datasets_asset(),
    "URL_LIST": URL_LIST,
    "EXPORT": EXPORT,
    "COVERAGE": o.build_linked_snapshot_asset(EXPORT, view="url_coverage_v1"),
    "several": several,
    "mine": mine,
}


def told(expression: str, value: object) -> str:
    """What is told of an expression with the value X, or of a command."""
    if expression.startswith("$ octogen-dagster "):
        done = CliRunner().invoke(main, shlex.split(expression)[2:])
        assert (done.exit_code, done.stdout) == (2, "")
        return " ".join(done.stderr[done.stderr.index("Error: ") :].split())
    with pytest.raises((ValueError, TypeError)) as caught:
        eval(expression, NAMES | {"X": value})
    text = f"{caught.value} {caught.value!r}"
    assert not any(secret in text for secret in (SECRET, KEY, KEY.rpartition("_")[2]))
    return text


@pytest.mark.parametrize("line", re.findall(r"^[^#\n].*", GOLDEN.read_text(), re.MULTILINE))
def test_each_kind_of_mistake_is_told_by_its_name(line: str) -> None:
    expression, _, expected = line.rpartition("  # ")
    name, _, words = expected.partition(": ")
    expression, _, values = expression.partition(" for X in ")
    for value in eval(f"[{values or None}]", NAMES):
        text = told(expression, value)
        assert name in text
        assert words in text


@pytest.mark.parametrize(
    ("name", "meant"),
    [("build_product_asset", "build_products_asset"), ("OctogenResourc", "OctogenResource")],
)
def test_a_name_that_there_is_not_is_told_with_the_one_that_is_meant(name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=f"has no name '{name}'. Did you mean '{meant}'"):
        getattr(o, name)
    assert not hasattr(o, "nothing_like_it")


def test_a_destination_is_not_a_name_of_the_package_and_the_error_has_its_module() -> None:
    with pytest.raises(AttributeError, match=r"octogen_dagster\.tables"):
        o.DuckDBTables  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(o, "PostgresTables")
