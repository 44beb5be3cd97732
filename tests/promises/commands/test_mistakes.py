"""A wrong argument is refused where it is written, by a text that names it and shows no secret.

`tests/golden/mistakes.txt` has expressions and commands, and what is told of them.
`UPDATE_GOLDEN=1` writes it anew.
"""

from __future__ import annotations

import os
import shlex
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

import octogen_dagster as o
from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.faults import Fault
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import KEY

GOLDEN = Path(__file__).parents[2] / "golden" / "mistakes.txt"
SECRET = "wJalrXUtnFEMI-K7MDENG"
PEM = f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----"


@dg.multi_asset(specs=[dg.AssetSpec("a"), dg.AssetSpec("b")])
def several() -> tuple[None, None]:
    return None, None


@dg.asset(partitions_def=o.catalog_partitions)
def mine() -> None: ...


PRODUCTS = o.build_products_asset("products")
HISTORY = o.build_product_history_asset(PRODUCTS)
OWN = pl.DataFrame({"sku": "1", "product_url": "a", "own_price": 129.9, "currency": "EUR"})

NAMES: dict[str, Any] = {
    **{name: getattr(o, name) for name in o.__all__},
    "dg": dg,
    "timedelta": timedelta,
    "Sandbox": Sandbox,
    "Fault": Fault,
    "KEY": KEY,
    "SECRET": SECRET,
    "PEM": PEM,
    "ME": "user:me@example.com",
    "pl": pl,
    "OWN": OWN,
    "PRODUCTS": PRODUCTS,
    "CATALOGS": o.build_catalogs_asset(),
    "HISTORY": HISTORY,
    "ALERTS": o.build_price_alerts_asset(HISTORY, [o.PriceDropped()]),
    "DATASETS": o.build_linked_datasets_asset(),
    "several": several,
    "mine": mine,
}


def told(expression: str) -> str:
    """What is told of an expression, or of a command after its exit status."""
    if expression.startswith("$ octogen-dagster "):
        done = CliRunner().invoke(main, shlex.split(expression)[2:])
        assert done.stdout == ""
        errors = done.stderr[done.stderr.index("Error: ") :].splitlines()
        return f"{done.exit_code} {' '.join(line.strip() for line in errors)}"
    with pytest.raises((ValueError, TypeError)) as caught:
        eval(expression, NAMES)
    error = caught.value
    for secret in (SECRET, KEY, KEY.rpartition("_")[2]):
        assert secret not in f"{error} {error!r}", expression
    if not isinstance(error, ValidationError):
        return f"{type(error).__name__}: {error}"
    places = [(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()]
    return "; ".join(f"{place}: {text}" if place else text for place, text in places)


def test_mistakes_are_told_as_before() -> None:
    lines = [
        line if line.startswith("#") or not line else f"{line}\n=> {told(line)}"
        for line in GOLDEN.read_text().splitlines()
        if not line.startswith("=> ")
    ]
    text = "\n".join(lines) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@pytest.mark.parametrize(
    ("name", "meant"),
    [("build_product_asset", "build_products_asset"), ("OctogenResourc", "OctogenResource")],
)
def test_a_name_that_there_is_not_is_told_with_the_one_that_is_meant(name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=f"has no name '{name}'. Did you mean '{meant}'"):
        getattr(o, name)
    assert not hasattr(o, "nothing_like_it")
