"""Measures of a table of products: rows, nulls, repeats and prices, and samples of bad rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import polars as pl

MIN_PRICES = 10
"""The smallest number of prices whose median says what an outlier is."""
_SHOWN = ("catalog_key", "uuid", "product_url", "title")
_PROBLEMS = ("negative", "zero", "original below current", "far from the median")


@dataclass(frozen=True)
class ProductQuality:
    """Measures of a table of products, each computed when it is first asked for.

    Every measure streams through the columns that it needs. Samples are of at most `sample_rows`
    rows.

    Args:
        frame: The table. A measure needs its columns: `uuid`, and `catalog_key` if a uuid is unique
            in its catalog only; `current_price` and `currency`, and maybe `original_price`.
        price_outlier_ratio: How many times a price may be above or below its currency's median.
        sample_rows: The most rows of a sample.
    """

    frame: pl.LazyFrame
    price_outlier_ratio: float = 100.0
    sample_rows: int = 5

    @cached_property
    def schema(self) -> pl.Schema:
        """The columns and their types."""
        return self.frame.collect_schema()

    @cached_property
    def rows(self) -> int:
        """The number of rows."""
        rows: int = self.frame.select(pl.len()).collect(engine="streaming").item()
        return rows

    @cached_property
    def null_shares(self) -> dict[str, float]:
        """The share of nulls in each column that is not nested, and of the brands' names.

        Without rows there are none.
        """
        if not self.rows:
            return {}
        shares = self.frame.select(
            value.is_null().mean().alias(name) for name, value in self._values.items()
        )
        return shares.collect(engine="streaming").row(0, named=True)

    @cached_property
    def repeats(self) -> int:
        """The number of rows whose catalog and uuid an earlier row has.

        They are compared by hashes of 64 bits.
        """
        distinct = self.frame.select(self._identity.hash().n_unique())
        return self.rows - int(distinct.collect(engine="streaming").item())

    @cached_property
    def prices(self) -> pl.DataFrame:
        """The prices of each currency, the most frequent first; none is one of its own.

        `priced` counts those with a price, and `bad` is the sum of the counts of each problem.
        """
        judged = self._judged.group_by("currency").agg(
            pl.len().alias("products"),
            pl.col("current_price").count().alias("priced"),
            pl.col("current_price").min().alias("lowest"),
            pl.col("median").first(),
            pl.col("current_price").max().alias("highest"),
            *((pl.col("problem") == problem).sum().alias(problem) for problem in _PROBLEMS),
            pl.col("problem").count().alias("bad"),
        )
        if not self.rows:  # Polars 2.0 panics at the join with an empty Parquet file
            return pl.DataFrame(schema=judged.collect_schema())
        return judged.sort("products", "currency", descending=[True, False]).collect(
            engine="streaming"
        )

    def repeated_rows(self) -> pl.DataFrame:
        """A sample of the products that are there more than once, with the number of their rows."""
        key = self._identity.hash().alias("key")
        counts = self.frame.select(key).group_by("key").agg(pl.len().alias("rows"))
        repeated = counts.filter(pl.col("rows") > 1).head(self.sample_rows)
        return (
            self.frame.select(*self._shown(), key)
            .join(repeated.collect(engine="streaming").lazy(), on="key")
            .unique("key", keep="any")
            .drop("key")
            .collect(engine="streaming")
        )

    def null_rows(self, columns: list[str]) -> pl.DataFrame:
        """A sample of the rows in which one of some columns of `null_shares` is null."""
        is_null = pl.any_horizontal(self._values[name].is_null() for name in columns)
        return (
            self.frame.filter(is_null)
            .select(*dict.fromkeys([*self._shown(), *columns]))
            .head(self.sample_rows)
            .collect(engine="streaming")
        )

    def bad_price_rows(self) -> pl.DataFrame:
        """A sample of the rows with a bad price, and what is bad about it."""
        return (
            self._judged.filter(pl.col("problem").is_not_null())
            .select("problem", "current_price", "original_price", "currency", *self._shown())
            .head(self.sample_rows)
            .collect(engine="streaming")
        )

    @property
    def _values(self) -> dict[str, pl.Expr]:
        flat = [name for name, dtype in self.schema.items() if not dtype.is_nested()]
        values = {name: pl.col(name) for name in flat}
        brand = self.schema.get("brand")
        if isinstance(brand, pl.Struct) and "name" in brand.to_schema():
            values["brand"] = pl.col("brand").struct.field("name")
        return values

    @property
    def _judged(self) -> pl.LazyFrame:
        """The products with the median of their currency and the problem of their price, if any.

        Products without a currency may be priced in several, so their median says nothing.
        """
        price, median, ratio = pl.col("current_price"), pl.col("median"), self.price_outlier_ratio
        medians = self.frame.group_by("currency").agg(
            price.median().alias("median"), price.count().alias("prices")
        )
        is_far = (price > median * ratio) | (price < median / ratio)
        tests = (
            (price < 0) | (pl.col("original_price") < 0),
            price == 0,
            pl.col("original_price") < price,
            is_far & (pl.col("prices") >= MIN_PRICES) & pl.col("currency").is_not_null(),
        )
        problem = pl.coalesce(
            pl.when(test).then(pl.lit(name)) for name, test in zip(_PROBLEMS, tests, strict=True)
        )
        columns = ["current_price", "original_price", "currency", *self._shown()]
        frame = self.frame if "original_price" in self.schema else self._without_original()
        return (
            frame.select(columns)
            .join(medians, on="currency", how="left", nulls_equal=True)
            .with_columns(problem.alias("problem"))
        )

    def _without_original(self) -> pl.LazyFrame:
        return self.frame.with_columns(pl.lit(None, pl.Float64).alias("original_price"))

    @property
    def _identity_columns(self) -> list[str]:
        return [name for name in ("catalog_key", "uuid") if name in self.schema]

    @property
    def _identity(self) -> pl.Expr:
        return pl.struct(self._identity_columns)

    def _shown(self) -> list[str]:
        return [name for name in _SHOWN if name in self.schema]
