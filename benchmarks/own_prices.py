"""Alerts of own prices, and the history of a linked snapshot, alone in their process.

`python -m benchmarks.own_prices make SNAPSHOT FOLDER` makes histories of three days of 300,000
products, as they are and as a linked view has them, with own prices of 100,000 articles, each with
three of their pages. `update`, `linked` and `events` print the seconds and the peak memory of the
next day: of the history, of that of the view, and of the events of own prices in the first one.
`days NUMBER` prints those of the events of the last of so many days: 500 articles, five pages each.
"""

import json
import logging
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from benchmarks.history import ASSET, at, timed
from octogen_dagster import ParquetSnapshotIOManager
from octogen_dagster.alerts import BelowFloor, Undercut
from octogen_dagster.alerts.price_list import price_list_events, price_list_rows
from octogen_dagster.alerts.update import PriceListAlertsUpdate
from octogen_dagster.frames.stored import StoredSnapshot
from octogen_dagster.history.table import HISTORY_SCHEMA
from octogen_dagster.history.tracking import PRODUCTS, Tracking
from octogen_dagster.history.update import HistoryUpdate

_PAGES = 3
_DAYS_BEFORE = 3
_LINKED, _OWN, _ALERTS = "linked_history", "articles_history", "price_list_alerts"
_LACKED = ("original_price", "is_active")
"""The columns that the view does not have."""
_FEW, _MANY_PAGES = 500, 5
_OF_OWN = ("product_url", "current_price", "currency", "valid_from", "valid_to")
_RULES = [Undercut(percent=5), BelowFloor()]
_ARTICLES = Tracking.of_table(
    ("sku", "product_url"),
    {name: (name,) for name in ("price", "map_price", "currency")},
)


def _lap(snapshot: Path, lap: int) -> pl.LazyFrame:
    """The products of a snapshot again, under other keys and addresses."""
    page = pl.format("https://shop-{}.example/p/{}", pl.lit(lap), pl.int_range(pl.len()))
    uuid = pl.concat_str(pl.lit(f"{lap:08x}"), pl.col("uuid").str.slice(8))
    return pl.scan_parquet(snapshot).with_columns(uuid.alias("uuid"), page.alias("product_url"))


def _stored(products: Path, folder: Path, day: int) -> pl.LazyFrame:
    """Store the snapshot of a day, on which one price in a hundred falls."""
    path, number = folder / f"day-{day}.parquet", pl.col("uuid").hash(seed=1) % 100
    fallen = pl.when(number + day >= 100).then(0.85).otherwise(1.0)
    now = pl.lit(at(day), pl.Datetime("us", "UTC"))
    snapshot = pl.scan_parquet(products).with_columns(
        (pl.col("current_price") * fallen).round(2).alias("current_price"), now.alias("fetched_at")
    )
    snapshot.sink_parquet(path, compression="zstd", compression_level=1, row_group_size=20_000)
    return pl.scan_parquet(path)


def _put_in(
    folder: Path,
    asset: str,
    snapshot: pl.LazyFrame,
    day: int,
    tracking: Tracking = PRODUCTS,
    view: str = "",
) -> None:
    """Put the snapshot of a day into a history, as a run of its asset does."""
    file_metadata = {"octogen.fetched_at": at(day).isoformat()}
    if view:
        file_metadata["octogen.source_table"] = view
    update = HistoryUpdate([StoredSnapshot(lambda: (snapshot, file_metadata))], tracking)
    manager = ParquetSnapshotIOManager(base_dir=str(folder))
    manager.handle_output(dg.build_output_context(asset_key=asset), update)


def _put_in_linked(folder: Path, snapshot: pl.LazyFrame, day: int) -> None:
    view = snapshot.drop(_LACKED).rename({"fetched_at": "exported_at"})
    _put_in(folder, _LINKED, view, day, view="project.dataset.products")


def _articles(products: Path) -> pl.LazyFrame:
    """A page of each lap for each article, whose own price is near those of its pages."""
    price, number = pl.col("current_price"), pl.col("product_url").str.extract(r"(\d+)$")
    near = price * (0.8 + pl.col("uuid").hash(seed=2) % 50 / 100)
    return pl.scan_parquet(products).select(
        number.alias("sku"),
        "product_url",
        near.round(2).alias("price"),
        (price * 0.7).round(2).alias("map_price"),
        "currency",
    )


def _tell(folder: Path, history: Path, own: Path) -> None:
    """Bring the alerts in a folder up to date with both histories, as a run of their asset does."""
    said: Mapping[str, Mapping[str, str]] = {
        name: pl.read_parquet_metadata(file) for name, file in (("history", history), ("own", own))
    }
    update = PriceListAlertsUpdate(_RULES, pl.scan_parquet(history), pl.scan_parquet(own), said)
    manager = ParquetSnapshotIOManager(base_dir=str(folder))
    manager.handle_output(dg.build_output_context(asset_key=_ALERTS), update)


def make(snapshot: Path, folder: Path) -> None:
    """Make the histories, the events in them, and the history with the next day."""
    products, following = folder / "products.parquet", folder / "next"
    following.mkdir(parents=True)
    pl.concat([_lap(snapshot, lap) for lap in range(_PAGES)]).sink_parquet(products)
    _put_in(folder, _OWN, _articles(products), 0, _ARTICLES)
    for day in range(_DAYS_BEFORE):
        of_day = _stored(products, folder, day)
        _put_in(folder, ASSET, of_day, day)
        _put_in_linked(folder, of_day, day)
    _tell(folder, folder / f"{ASSET}.parquet", folder / f"{_OWN}.parquet")
    shutil.copy(folder / f"{ASSET}.parquet", following)
    _put_in(following, ASSET, _stored(products, folder, _DAYS_BEFORE), _DAYS_BEFORE)


def _lasting(sku: int, page: int, days: int, every: int) -> list[dict[str, Any]]:
    """The rows of a page, each of which lasts some days and has another price than the last."""
    begins = [at(day) for day in range((sku + 3 * page) % every, days, every)]
    return [
        {
            "catalog_key": f"shop-{page}",
            "uuid": f"{sku}-{page}",
            "sku": f"{sku}",
            "product_url": f"https://shop-{page}.example/p/{sku}",
            "current_price": 80.0 + (13 * sku + 7 * page + 11 * place) % 40,
            "currency": "EUR",
            "valid_from": begin,
            "valid_to": end,
            "is_current": end is None,
        }
        for place, (begin, end) in enumerate(zip(begins, [*begins[1:], None], strict=True))
    ]


def _pages_of(days: int, every: int, columns: Mapping[str, Any]) -> pl.LazyFrame:
    """All pages of the articles, in which a row lasts some days."""
    pages = [(sku, page) for sku in range(_FEW) for page in range(_MANY_PAGES)]
    rows = [row for page in pages for row in _lasting(*page, days, every)]
    return pl.DataFrame(rows, schema=columns).lazy()


def last_of(days: int) -> dict[str, float]:
    """Find the events of the last of some days."""
    history = _pages_of(days, 10, HISTORY_SCHEMA)
    schema = {name: HISTORY_SCHEMA.get(name, pl.String) for name in ("sku", *_OF_OWN)}
    prices = _pages_of(days, 40, schema)
    own = prices.rename({"current_price": "price"}).with_columns(map_price=90.0)
    rules = dict.fromkeys(_RULES, at(days - 1))
    return timed(lambda: list(price_list_events(history, price_list_rows(own, rules), rules)))


def _next_day(folder: Path) -> pl.LazyFrame:
    return pl.scan_parquet(folder / f"day-{_DAYS_BEFORE}.parquet")


def update(folder: Path, copy: Path) -> None:
    """Put the next day into a copy of the history."""
    _put_in(copy, ASSET, _next_day(folder), _DAYS_BEFORE)


def linked(folder: Path, copy: Path) -> None:
    """Put the next day into a copy of the history of the linked view."""
    _put_in_linked(copy, _next_day(folder), _DAYS_BEFORE)


def events(folder: Path, copy: Path) -> None:
    """Bring a copy of the alerts up to date with the next day."""
    _tell(copy, folder / "next" / f"{ASSET}.parquet", folder / f"{_OWN}.parquet")


if __name__ == "__main__":
    logging.disable(logging.INFO)
    what, *paths = sys.argv[1:]
    if what == "make":
        make(*map(Path, paths))
    elif what == "days":
        print(json.dumps(last_of(int(paths[0]))))
    else:
        (folder,) = map(Path, paths)
        copy = folder / "copy"
        copy.mkdir(exist_ok=True)
        for name in (ASSET, _LINKED, _ALERTS):
            shutil.copy(folder / f"{name}.parquet", copy)
        dg.build_output_context(asset_key=ASSET)  # warms up: Dagster's instance is imported with it
        works = {each.__name__: each for each in (update, linked, events)}
        print(json.dumps(timed(lambda: works[what](folder, copy))))
