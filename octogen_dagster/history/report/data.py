"""The data of a report: the last dates of a history, with brands, categories and events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from octogen_dagster.alerts import (
    Appeared,
    BackInStock,
    Disappeared,
    OutOfStock,
    PriceDropped,
    PriceRose,
)
from octogen_dagster.alerts.events import ALERTS_SCHEMA, events_of, first_seen_of
from octogen_dagster.alerts.rules import with_currency_changes
from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.stored import IN_STOCK, KEY, PRODUCT_KEY, known_price
from octogen_dagster.history.files import history_files
from octogen_dagster.history.observed import Observed, read_observed
from octogen_dagster.history.table import HISTORY_SCHEMA
from octogen_dagster.history.tracking import fitted
from octogen_dagster.position.stored import stored_position
from octogen_dagster.position.table import MATCHED
from octogen_dagster.storage.store import Store, asset_path

_MAX_TITLE_LENGTH = 160
_MAX_BELOW = 5
_REAPPEARED = "reappeared"
_RULES = with_currency_changes(
    [PriceDropped(), PriceRose(), BackInStock(), OutOfStock(), Appeared(), Disappeared()]
)
_KINDS = [*(rule.name.replace("_", " ") for rule in _RULES), _REAPPEARED]
"""The kinds of events. A product that appeared and was there before is `reappeared`."""


class _Part(NamedTuple):
    """The rows, products and events of the last dates in a file of a history."""

    rows: pl.DataFrame
    products: pl.DataFrame
    events: pl.DataFrame


def report_data(
    base_dir: str,
    *,
    asset: str,
    days: int,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the rows of a history that held on its last dates in UTC, as columns of JSON.

    Texts that repeat are lists, and columns hold their places in them; -1 stands for none. The rows
    of a product follow each other, and `rows` of the products says how many they are. `events` are
    those that rules of alerts without a threshold find, and those of the alerts of own prices
    `<products>_own_alerts`, if there are any, which have a `sku`. `own` has the SKUs of the price
    position `<products>_position`, if there is one, each with the cheapest competitors below it.

    Raises:
        OctogenSnapshotError: There is no such history, it is empty, or it cannot be read.
    """
    store = Store(base_dir, storage_options)
    files = list(history_files(store, asset, of_products=True).values())
    times = [at for key in files for at in read_observed(store.metadata(key))]
    if not times:
        raise OctogenSnapshotError(
            f"The history {asset} has no rows yet, so there is nothing to report. Materialize it "
            "after its products."
        )
    until = max(times)
    before = (_date(until) - _date(min(times))).days
    since = _date(until) - timedelta(days=min(days - 1, before))
    parts = [_part(store, key, since) for key in files]
    rows, products, events = (pl.concat(each) for each in zip(*parts, strict=True))
    numbered = products.select("file", *PRODUCT_KEY).with_row_index("product")
    events = events.join(numbered, on=["file", *PRODUCT_KEY], nulls_equal=True)
    known = numbered.unique(PRODUCT_KEY, maintain_order=True).select("product", *PRODUCT_KEY)
    own = _own_prices(store, asset, known)
    events = pl.concat([events, _own_events(store, asset, since, known)], how="diagonal")
    kinds = [*dict.fromkeys([*_KINDS, *events["kind"]])]
    times, begin, end, at = _places(rows["valid_from"], rows["valid_to"], events["at"])
    catalogs, catalog = _places(products["catalog_key"])
    brands, brand = _places(products["brand"])
    categories, category = _places(products["category"])
    currencies, currency, event_currency, own_currency = _places(
        rows["currency"], events["currency"], own["currency"]
    )
    return {
        "asset": asset,
        "since": since.timestamp(),
        "until": until.timestamp(),
        "made_at": datetime.now(UTC).timestamp(),
        "times": [each.timestamp() for each in times],
        "catalogs": catalogs,
        "brands": brands,
        "categories": categories,
        "currencies": currencies,
        "kinds": kinds,
        "products": {
            "title": products["title"].fill_null("").to_list(),
            "url": products["product_url"].fill_null("").to_list(),
            "catalog": catalog,
            "brand": brand,
            "category": category,
            "rows": products["rows"].to_list(),
        },
        "rows": {
            "begin": begin,
            "end": end,
            "price": rows["price"].to_list(),
            "currency": currency,
            "stock": rows["stock"].cast(pl.Int8).fill_null(-1).to_list(),
        },
        "events": {
            "product": events["product"].to_list(),
            "at": at,
            "kind": events["kind"].cast(pl.Enum(kinds)).to_physical().to_list(),
            "currency": event_currency,
            **{name: events[name].to_list() for name in _OF_EVENT},
        },
        "own": {
            **{name: own[name].to_list() for name in _OF_SKU},
            "currency": own_currency,
        },
    }


def _date(moment: datetime) -> datetime:
    """The first moment of a time's date in UTC."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _part(store: Store, key: str, since: datetime) -> _Part:
    stored, metadata = store.open(key)
    history, observed = fitted(stored, HISTORY_SCHEMA), read_observed(metadata)
    is_over = pl.col("valid_to") < since
    rows = (
        history.filter(~is_over.fill_null(value=False))
        .select(
            *PRODUCT_KEY,
            "product_url",
            "title",
            pl.col("brand_name").alias("brand"),
            "category",
            "valid_from",
            "valid_to",
            known_price(pl.col("current_price")).alias("price"),
            pl.col("currency").str.to_uppercase(),
            IN_STOCK.alias("stock"),
        )
        .collect(engine="streaming")
        .sort(*PRODUCT_KEY, "valid_from")
    )
    title = pl.col("title").drop_nulls().last().str.slice(0, _MAX_TITLE_LENGTH)
    products = rows.group_by(PRODUCT_KEY, maintain_order=True).agg(
        title, pl.col("product_url", "brand", "category").last(), pl.len().alias("rows")
    )
    events, file = _events(history, observed, since), pl.lit(key).alias("file")
    return _Part(rows, products.with_columns(file), events.with_columns(file))


def _events(history: pl.LazyFrame, observed: Observed, since: datetime) -> pl.DataFrame:
    """The events that the rules of alerts find from a time on."""
    begun = history.filter(pl.any_horizontal(pl.col("valid_from", "valid_to") >= since))
    touched = begun.select(KEY.unique().implode()).collect(engine="streaming").to_series()
    rows = history.filter(KEY.is_in(touched)).collect(engine="streaming")
    first_seen = first_seen_of(observed, rows["catalog_key"].unique().to_list())
    nothing = pl.DataFrame(schema=dict.fromkeys(PRODUCT_KEY, pl.String))
    events = events_of(rows, nothing, dict.fromkeys(_RULES, since), first_seen)
    is_back = (pl.col("rule") == "appeared") & pl.col("since").is_not_null()
    kind = pl.col("rule").str.replace_all("_", " ")
    kind = pl.when(is_back).then(pl.lit(_REAPPEARED)).otherwise(kind)
    return events.select(
        *PRODUCT_KEY,
        "at",
        kind.alias("kind"),
        "before",
        "after",
        pl.col("currency").str.to_uppercase(),
    )


_OF_EVENT = ("before", "after", "sku", "own_price", "rank_before", "rank")


def _own_events(store: Store, asset: str, since: datetime, products: pl.DataFrame) -> pl.DataFrame:
    """The events from a time on of the alerts of own prices that are named after a history."""
    key = f"{asset_path(asset).removesuffix('_history')}_own_alerts.parquet"
    told = pl.LazyFrame(schema=ALERTS_SCHEMA)
    if store.exists(key):
        told = store.scan(key).filter(pl.col("at") >= since)
    events = told.select(
        *PRODUCT_KEY,
        "at",
        pl.col("rule").str.replace_all("_", " ").alias("kind"),
        pl.col("currency").str.to_uppercase(),
        *_OF_EVENT,
    )
    found = events.collect(engine="streaming")
    return found.join(products, on=PRODUCT_KEY, nulls_equal=True, maintain_order="left")


_OF_SKU = ("sku", "price", "rank", "competitors", "index", "products", "below")


def _own_prices(store: Store, asset: str, products: pl.DataFrame) -> pl.DataFrame:
    """The SKUs of a history's position by their own prices, the dearest ones first."""
    position = stored_position(store, f"{asset.removesuffix('_history')}_position")
    if position is None:
        return pl.DataFrame(schema={"currency": pl.String, **dict.fromkeys(_OF_SKU, pl.Null)})
    matched = position.filter(pl.col("status") == MATCHED).select(
        *(pl.col("sku").cast(pl.String), pl.col("own_price").alias("price")),
        pl.col("currency").cast(pl.String).str.to_uppercase(),
        *("rank", "competitors", pl.col("median_index").alias("index")),
        *(pl.col(f"competitor_{name}").alias(name) for name in PRODUCT_KEY),
        pl.col("product_url").cast(pl.String).alias("url"),
        pl.col("competitor_title").str.slice(0, _MAX_TITLE_LENGTH).alias("title"),
        pl.col("competitor_price").alias("theirs"),
    )
    placed = matched.join(products, on=PRODUCT_KEY, how="left", nulls_equal=True)
    of_sku = ["sku", "currency", "price"]
    is_below = pl.col("theirs") < pl.col("price")
    return (
        placed.sort("theirs", "url")
        .unique([*of_sku, *PRODUCT_KEY], keep="first", maintain_order=True)
        .group_by(of_sku, maintain_order=True)
        .agg(
            pl.col("rank", "competitors", "index").first(),
            pl.col("product").drop_nulls().alias("products"),
            pl.struct("title", "url", pl.col("theirs").alias("price"))
            .filter(is_below)
            .head(_MAX_BELOW)
            .alias("below"),
        )
        .sort("index", "sku", descending=[True, False])
    )


def _places(*columns: pl.Series) -> tuple[list[Any], ...]:
    """The distinct values of columns in their order, and of each column the places in them."""
    values = pl.concat(columns).drop_nulls().unique().sort().rename("value")
    places = values.to_frame().with_row_index("place").cast({"place": pl.Int64})
    frames = (column.rename("value").to_frame() for column in columns)
    joined = (each.join(places, on="value", how="left", maintain_order="left") for each in frames)
    return values.to_list(), *(each["place"].fill_null(-1).to_list() for each in joined)
