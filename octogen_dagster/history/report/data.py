"""report_data: the rows and events from the last days of a history, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
"""The kinds of events. If a product existed before, its `appeared` event becomes `reappeared`."""


class _FileData(NamedTuple):
    """A history file's rows, products and events from the last days."""

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
    """Return the rows that were valid in the last days of a history, as column-oriented JSON.

    Days are in UTC. Each distinct string is stored once in a list. Columns contain indexes into
    this list, and -1 means null. The rows of a product are consecutive, and `rows` in `products` is
    the number of rows. `events` contains the events that the alert rules find without a threshold.
    If the asset `<products>_price_list_alerts` exists, `events` also contains the asset's events,
    each with a `sku`. If the asset `<products>_position` exists, `own` lists the SKUs in this price
    position. For each SKU, `below` lists the cheapest competitors below your price.

    Raises:
        OctogenSnapshotError: The history does not exist, is empty or cannot be read.
    """
    store = Store(base_dir, storage_options)
    files = list(history_files(store, asset, of_products=True).values())
    since, until = _period(store, files, asset, days)
    parts = [_file_data(store, key, since) for key in files]
    rows, products, events = (pl.concat(each) for each in zip(*parts, strict=True))
    numbered = products.select("file", *PRODUCT_KEY).with_row_index("product")
    events = events.join(numbered, on=["file", *PRODUCT_KEY], nulls_equal=True)
    unique = numbered.unique(PRODUCT_KEY, maintain_order=True).select("product", *PRODUCT_KEY)
    events = pl.concat([events, _price_list_events(store, asset, since, unique)], how="diagonal")
    return {
        "asset": asset,
        "since": since.timestamp(),
        "until": until.timestamp(),
        "made_at": datetime.now(UTC).timestamp(),
        **_columns(rows, products, events, _price_list(store, asset, unique)),
    }


def _period(store: Store, files: Sequence[str], asset: str, days: int) -> tuple[datetime, datetime]:
    """Return a pair: the start of the report's first day, and the time of the latest snapshot."""
    times = [at for key in files for at in read_observed(store.metadata(key))]
    if not times:
        raise OctogenSnapshotError(
            f"The history {asset} has no rows yet, so there is nothing to report. Materialize its "
            "products asset, then the history."
        )
    first, last = _start_of_day(min(times)), _start_of_day(max(times))
    return last - timedelta(days=min(days - 1, (last - first).days)), max(times)


def _columns(
    rows: pl.DataFrame, products: pl.DataFrame, events: pl.DataFrame, own: pl.DataFrame
) -> dict[str, Any]:
    kinds = [*dict.fromkeys([*_KINDS, *events["kind"]])]
    times, begin, end, at = _encoded(rows["valid_from"], rows["valid_to"], events["at"])
    catalogs, catalog = _encoded(products["catalog_key"])
    brands, brand = _encoded(products["brand"])
    categories, category = _encoded(products["category"])
    currencies, currency, event_currency, own_currency = _encoded(
        rows["currency"], events["currency"], own["currency"]
    )
    return {
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
            **{name: events[name].to_list() for name in _EVENT_COLUMNS},
        },
        "own": {
            **{name: own[name].to_list() for name in _SKU_COLUMNS},
            "currency": own_currency,
        },
    }


def _start_of_day(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _file_data(store: Store, key: str, since: datetime) -> _FileData:
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
    return _FileData(rows, products.with_columns(file), events.with_columns(file))


def _events(history: pl.LazyFrame, observed: Observed, since: datetime) -> pl.DataFrame:
    changed = history.filter(pl.any_horizontal(pl.col("valid_from", "valid_to") >= since))
    touched = changed.select(KEY.unique().implode()).collect(engine="streaming").to_series()
    rows = history.filter(KEY.is_in(touched)).collect(engine="streaming")
    first_seen = first_seen_of(observed, rows["catalog_key"].unique().to_list())
    delivered = pl.DataFrame(schema=dict.fromkeys(PRODUCT_KEY, pl.String))
    events = events_of(rows, delivered, dict.fromkeys(_RULES, since), first_seen)
    reappeared = (pl.col("rule") == "appeared") & pl.col("since").is_not_null()
    kind = pl.col("rule").str.replace_all("_", " ")
    kind = pl.when(reappeared).then(pl.lit(_REAPPEARED)).otherwise(kind)
    return events.select(
        *PRODUCT_KEY,
        "at",
        kind.alias("kind"),
        "before",
        "after",
        pl.col("currency").str.to_uppercase(),
    )


_EVENT_COLUMNS = ("before", "after", "sku", "price", "rank_before", "rank")


def _price_list_events(
    store: Store, asset: str, since: datetime, products: pl.DataFrame
) -> pl.DataFrame:
    """Return the events in the asset `<products>_price_list_alerts` from `since` onward."""
    key = f"{asset_path(asset).removesuffix('_history')}_price_list_alerts.parquet"
    alerts = pl.LazyFrame(schema=ALERTS_SCHEMA)
    if store.exists(key):
        alerts = store.scan(key).filter(pl.col("at") >= since)
    events = alerts.select(
        *PRODUCT_KEY,
        "at",
        pl.col("rule").str.replace_all("_", " ").alias("kind"),
        pl.col("currency").str.to_uppercase(),
        *_EVENT_COLUMNS,
    )
    found = events.collect(engine="streaming")
    return found.join(products, on=PRODUCT_KEY, nulls_equal=True, maintain_order="left")


_SKU_COLUMNS = ("sku", "price", "rank", "competitors", "index", "products", "below")


def _price_list(store: Store, asset: str, products: pl.DataFrame) -> pl.DataFrame:
    """Return the SKUs in the asset `<products>_position`, highest price index first."""
    position = stored_position(store, f"{asset.removesuffix('_history')}_position")
    if position is None:
        return pl.DataFrame(schema={"currency": pl.String, **dict.fromkeys(_SKU_COLUMNS, pl.Null)})
    matched = position.filter(pl.col("status") == MATCHED).select(
        *(pl.col("sku").cast(pl.String), "price"),
        pl.col("currency").cast(pl.String).str.to_uppercase(),
        *("rank", "competitors", pl.col("median_index").alias("index")),
        *(pl.col(f"competitor_{name}").alias(name) for name in PRODUCT_KEY),
        pl.col("product_url").cast(pl.String).alias("url"),
        pl.col("competitor_title").str.slice(0, _MAX_TITLE_LENGTH).alias("title"),
        "competitor_price",
    )
    placed = matched.join(products, on=PRODUCT_KEY, how="left", nulls_equal=True)
    sku_columns = ["sku", "currency", "price"]
    is_below = pl.col("competitor_price") < pl.col("price")
    return (
        placed.sort("competitor_price", "url")
        .unique([*sku_columns, *PRODUCT_KEY], keep="first", maintain_order=True)
        .group_by(sku_columns, maintain_order=True)
        .agg(
            pl.col("rank", "competitors", "index").first(),
            pl.col("product").drop_nulls().alias("products"),
            pl.struct("title", "url", pl.col("competitor_price").alias("price"))
            .filter(is_below)
            .head(_MAX_BELOW)
            .alias("below"),
        )
        .sort("index", "sku", descending=[True, False])
    )


def _encoded(*columns: pl.Series) -> tuple[list[Any], ...]:
    """Return the sorted distinct values of all columns, then each column as a list of indexes.

    The index -1 means null.
    """
    values = pl.concat(columns).drop_nulls().unique().sort().rename("value")
    indexes = values.to_frame().with_row_index("index").cast({"index": pl.Int64})
    frames = (column.rename("value").to_frame() for column in columns)
    joined = (each.join(indexes, on="value", how="left", maintain_order="left") for each in frames)
    return values.to_list(), *(each["index"].fill_null(-1).to_list() for each in joined)
