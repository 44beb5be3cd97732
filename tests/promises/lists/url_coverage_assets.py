"""The assets of a URL list's export, and the service that describes the list."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import polars as pl

import octogen_dagster as od
from tests.api.servers import Received, http

LIST_ID = "cul_01"
SHOP = "https://shop.example"
SAID_AT = "2026-11-28T06:40:00+00:00"


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


@dataclass
class Lists:
    """The service's answers about the list."""

    status: str = "active"
    exported_at: str | None = SAID_AT
    big_query: bool = True
    refusal: tuple[int, str] | None = None
    created_at: str = "2026-11-01T00:00:00Z"
    received: list[str] = field(default_factory=list)

    def __call__(self, request: Received) -> list[bytes]:
        self.received.append(f"{request.method} {request.target}")
        if self.refusal:
            return http(self.refusal[0], {"detail": self.refusal[1]})
        if request.target.endswith(LIST_ID):
            return http(200, self.answer())
        return http(200, {"items": [self.answer()], "nextCursor": None})

    def answer(self) -> dict[str, Any]:
        place = {
            "exchangeId": "catalogs_prod",
            "listingId": "coverage_cul_01_v1",
            "sharedDatasetId": "coverage_share_cul_01_v1",
            "viewId": "products_current_v1",
            "lastExportedAt": self.exported_at,
            "lastRowCount": None if self.exported_at is None else 5,
            "readerCount": 1,
        }
        return {
            "urlListId": LIST_ID,
            "name": "q3",
            "status": self.status,
            "urlCount": 5,
            "bigQuery": place if self.big_query else None,
            "createdAt": self.created_at,
            "updatedAt": self.created_at,
        }
