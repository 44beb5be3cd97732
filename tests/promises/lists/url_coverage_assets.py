"""The assets of a URL list's export."""

from __future__ import annotations

from typing import Any

import dagster as dg
import polars as pl

import octogen_dagster as od

LIST_ID = "cul_01"
SHOP = "https://shop.example"


def own_table() -> pl.DataFrame:
    """The table of the list."""
    rows = [
        ("A1", 90.0, "Own boot", "/products/boot?utm_source=x"),
        ("A2", 45.0, "Own sock", "/products/boot"),
        ("B", 20.0, "Own hat", "/collections/new/products/hat"),
        ("C", 10.0, "Own cap", "/products/cap?color=red"),
        ("D", 5.0, "Own pen", "/products/pen"),
        ("E", 1.0, "Own ink", "/products/ink"),
    ]
    return pl.DataFrame(
        [
            *(
                (sku, price, title, f"{SHOP}{path}", f"{SHOP}{path}".partition("?utm_")[0])
                for sku, price, title, path in rows
            ),
            ("F", 1.0, "Own fig", "nonsense", None),
        ],
        schema=["sku", "price", "title", "url", "normalized_url"],
        orient="row",
    ).with_columns(
        rejected_code=pl.when(pl.col("normalized_url").is_null()).then(pl.lit("invalid_url")),
        rejected_message=pl.when(pl.col("normalized_url").is_null()).then(pl.lit("It is none.")),
    )


@dg.asset(metadata={"octogen/url_list": "q3"})
def q3() -> dg.MaterializeResult[pl.DataFrame]:
    return dg.MaterializeResult(value=own_table(), metadata={"octogen/url_list_id": LIST_ID})


def chain(
    url_list: dg.AssetsDefinition = q3,
    *,
    export: dict[str, Any] | None = None,
    snapshots: dict[str, Any] | None = None,
    offers: dict[str, Any] | None = None,
    matches: dict[str, Any] | None = None,
    **arguments: Any,
) -> list[dg.AssetsDefinition]:
    """The export of a list, the snapshots of its views and the matches, with these arguments."""
    name = url_list.key.path[-1]
    exported = od.build_url_list_export_asset(url_list, **arguments | (export or {}))
    snapshots = arguments | (snapshots or {})
    coverage = od.build_linked_snapshot_asset(
        exported, name=f"{name}_coverage", view="url_coverage_v1", **snapshots
    )
    products = od.build_linked_snapshot_asset(
        exported, name=f"{name}_offers", **snapshots | (offers or {})
    )
    matched = od.build_url_matches_asset(
        url_list, coverage, products, **arguments | (matches or {})
    )
    return [exported, coverage, products, matched]
