"""Reuse rows from the previous details snapshot if a product's listing is unchanged.

A semi join finds the reusable rows, and an anti join finds the products to look up. Both joins
compare hashes of the product's identity and its listing. Snapshots written by earlier versions have
fewer listing fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from octogen_dagster.errors import OctogenSnapshotError
from octogen_dagster.frames.columns import (
    DETAIL_SCHEMA,
    DIGEST,
    DIGESTED,
    FOUND,
    IDENTITY,
    LISTED,
    PRODUCT_SCHEMA,
    evolved,
)

if TYPE_CHECKING:
    from octogen_dagster.frames.source import SnapshotTarget

LISTED_FIELDS = [*LISTED, DIGEST]
_TEXTS: Mapping[str, pl.Expr] = {
    **{name: pl.col(name).list.join("\t") for name in ("category_path", "colors", "sizes")},
    "brand": pl.col("brand").struct.field("name"),
    "currency": pl.col("currency"),
    # Octogen's CDN URLs can come and go with the service's contract.
    "images": pl.col("images").list.eval(pl.element().struct.field("url")).list.join("\t"),
}
"""Expressions that convert the columns in the digest to text."""


class PreviousRows(NamedTuple):
    """The rows with the status `found` in a details snapshot.

    `keys` contains a hash of each row's identity and listing. `fields` lists the listing fields in
    the hash. Earlier versions stored fewer fields.
    """

    rows: pl.LazyFrame
    keys: pl.DataFrame
    fields: list[str]


def previous_rows(target: SnapshotTarget) -> PreviousRows:
    """Return the rows that can be reused from the latest details snapshot."""
    try:
        snapshot = target.latest()
        if snapshot is None:
            return NO_ROWS
        rows, lacking = evolved(snapshot, DETAIL_SCHEMA)
        fields = [name for name in LISTED_FIELDS if f"listed.{name}" not in lacking]
        # A gone product can come back, for example when access to its catalog is renewed.
        rows = with_key(rows, fields).filter(pl.col("status") == FOUND)
        keys = rows.select("key").collect(engine="streaming")
    except (OctogenSnapshotError, OSError, ValueError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        target.warn(
            "The previous details snapshot cannot be reused, so every product is looked up. "
            f"{reason}"
        )
        return NO_ROWS
    if unknown := [path for path in lacking if not path.startswith("listed.")]:
        target.warn(
            f"Columns missing from the previous details snapshot: {', '.join(unknown)}. In reused "
            "rows, these columns are null until the product changes. To fill in all rows now, run "
            "the asset once with only_changed=False."
        )
    return PreviousRows(rows, keys, fields)


def listed(snapshot: pl.LazyFrame) -> pl.LazyFrame:
    """Select the identity columns, and combine the listing columns into the struct `listed`."""
    columns = snapshot.collect_schema()
    if missing := [name for name in (*IDENTITY, *LISTED) if name not in columns]:
        raise ValueError(
            f"The products have no column {', '.join(missing)}. Pass a products snapshot with the "
            "columns in octogen_dagster.schemas.PRODUCT_SCHEMA."
        )
    typed = {name: pl.col(name).cast(PRODUCT_SCHEMA[name]) for name in (*IDENTITY, *LISTED)}
    identity = (typed[name] for name in IDENTITY)
    listed = pl.struct(*(typed[name] for name in LISTED), _digest(columns)).alias("listed")
    return snapshot.select(*identity, listed)


def _digest(columns: pl.Schema) -> pl.Expr:
    """Compute a digest of the columns in `DIGESTED`. Every Polars version gives the same digest."""
    texts = [
        _TEXTS[name].fill_null("") if columns.get(name) == PRODUCT_SCHEMA[name] else pl.lit("")
        for name in DIGESTED
    ]
    return (
        pl.concat_str(texts, separator="\n")
        .map_batches(_digests, return_dtype=pl.UInt64(), is_elementwise=True)
        .alias(DIGEST)
    )


def _digests(texts: pl.Series) -> pl.Series:
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return pl.Series([int.from_bytes(each, "big") for each in digests], dtype=pl.UInt64())


def with_key(frame: pl.LazyFrame, fields: Sequence[str]) -> pl.LazyFrame:
    """Add the column `key`, a hash of the product's identity and the given listing fields."""
    listed = pl.col("listed").struct
    # Earlier versions stored null if the service sent no value, which means true.
    active = listed.with_fields(pl.field("is_active").fill_null(value=True))
    values = [pl.col("listed").struct.field(name) for name in fields]
    return frame.with_columns(active).with_columns(
        pl.struct(*IDENTITY, *values).hash().alias("key")
    )


NO_ROWS = PreviousRows(
    with_key(DETAIL_SCHEMA.to_frame().lazy(), LISTED_FIELDS),
    pl.DataFrame(schema={"key": pl.UInt64()}),
    LISTED_FIELDS,
)
