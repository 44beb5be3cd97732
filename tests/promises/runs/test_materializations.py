"""What a person sees of a materialization: a sentence, a preview that fits, and few numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.schemas import PRODUCT_SCHEMA
from tests.histories import product
from tests.projects import Project
from tests.results import cells, materialized, metadata, octogen_at

NORTHPEAK = od.ProductSearch(catalogs=["northpeak"])
URL = "https://acme.example/boots/1"


class Pipeline:
    """The products of a catalog and what is made from them, materialized day after day."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, shops: Sandbox) -> None:
        products = od.build_products_asset("products", NORTHPEAK)
        history = od.build_product_history_asset(products, name="history")
        self.assets = [
            od.build_catalogs_asset("catalogs"),
            products,
            history,
            od.build_product_changes_asset(history, name="changes"),
            od.build_product_brands_asset(products, name="brands"),
            od.build_product_details_asset(products, name="details"),
        ]
        self.folder, self.instance, self._shops = folder, instance, shops
        source = od.ShopCatalogs(hosts=["northpeak.example"])
        self.octogen = octogen_at(shops, attempts=2, catalog_source=source)

    def day(self) -> dict[str, dict[str, Any]]:
        """Materialize all assets, and go on to the next day; their metadata by their names."""
        result = materialized(self.assets, self.folder, self.octogen, instance=self.instance)
        self._shops.next_day()
        names = [asset.key.to_user_string() for asset in self.assets]
        return {name: metadata(result, name) for name in names}


@pytest.fixture
def pipeline(tmp_path: Path, instance: dg.DagsterInstance) -> Iterator[Pipeline]:
    with Sandbox(catalogs={"northpeak": 120}) as shops:
        yield Pipeline(tmp_path, instance, shops)


def products(*rows: dict[str, Any]) -> pl.DataFrame:
    """Rows of products, each with what is not given as in a usual one."""
    usual = {"catalog_key": "acme", "product_url": URL, "currency": "EUR", "current_price": 10.0}
    return pl.DataFrame([usual | row for row in rows], schema=PRODUCT_SCHEMA)


def shown(
    frame: pl.DataFrame, folder: Path, instance: dg.DagsterInstance | None = None, **options: Any
) -> dict[str, Any]:
    """The metadata of an asset of one's own that returns a frame."""

    @dg.asset(partitions_def=options.pop("partitions_def", None))
    def own() -> pl.DataFrame:
        return frame

    return metadata(materialized([own], folder, instance=instance, **options), "own")


# A materialization begins with a sentence.


@pytest.mark.slow
def test_the_first_entry_is_a_sentence(pipeline: Pipeline) -> None:
    for day in (pipeline.day(), pipeline.day()):
        firsts = {
            name: next(entry for entry in entries if entry != "dagster/column_lineage")
            for name, entries in day.items()
        }
        assert firsts == dict.fromkeys(day, "octogen/summary")  # the UI shows no lineage


@pytest.mark.long
def test_the_sentence_of_products_says_what_is_new_and_what_it_cost(pipeline: Pipeline) -> None:
    first, second = pipeline.day(), pipeline.day()
    changes = {name.removeprefix("octogen/"): value for name, value in second["changes"].items()}
    new, gone, moved = (changes[name] for name in ("appeared", "disappeared", "price_changed"))
    assert all((new, gone, moved))
    read = second["products"]
    assert read["octogen/summary"] == (
        f"**{read['dagster/row_count']:,} products**, {new:,} new, {gone:,} gone, {moved:,} prices "
        f"moved; median {read['octogen/price_p50_usd']:,.2f} USD; $0.028"
    )
    assert first["products"]["octogen/summary"] == (
        f"**120 products**, the first snapshot; median "
        f"{first['products']['octogen/price_p50_usd']:,.2f} USD; $0.028"
    )


@pytest.mark.long
def test_the_sentences_of_what_is_made_from_products_count_its_rows(pipeline: Pipeline) -> None:
    first, second = pipeline.day(), pipeline.day()
    changes = {name.removeprefix("octogen/"): value for name, value in second["changes"].items()}
    new, gone, changed = (changes[name] for name in ("appeared", "disappeared", "changed"))
    assert second["changes"]["octogen/summary"].startswith(
        f"**{new} new, {gone} gone, {changed} changed**: "
    )
    assert f"price {changes['price_changed']}" in second["changes"]["octogen/summary"]
    assert first["changes"]["octogen/summary"] == "**120 new, 0 gone, 0 changed**"
    assert second["history"]["octogen/summary"].startswith(
        f"**{second['products']['dagster/row_count']} products** in 2 snapshots; the latest: "
        f"{new} new, {gone} gone, {changed} changed; median "
    )
    assert first["details"]["octogen/summary"] == "**120 products**: 120 found; $0.24"
    assert re.fullmatch(
        r"\*\*\d+ brands\*\* in \d+ currenc(y|ies), with 120 products",
        first["brands"]["octogen/summary"],
    )
    assert first["catalogs"]["octogen/summary"] == "**1 catalog** with 120 products"


@pytest.mark.slow
def test_a_snapshot_of_another_search_is_compared_with_none(
    project: Project, pipeline: Pipeline
) -> None:
    pipeline.day()
    config = {"ops": {"products": {"config": {"price_max": 50.0}}}}
    result = project.run([pipeline.assets[1]], pipeline.octogen, run_config=config)
    sentence = metadata(result, "products")["octogen/summary"]
    assert re.fullmatch(r"\*\*\d+ products\*\*; median \d+\.\d\d USD; \$0\.\d+", sentence)


def test_a_table_of_ones_own_is_counted(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": range(1234)})
    assert shown(frame, tmp_path)["octogen/summary"] == "**1,234 rows**"
    assert shown(frame.head(1), tmp_path)["octogen/summary"] == "**1 row**"


def test_a_read_that_was_cut_off_says_so(project: Project, shops: Sandbox) -> None:
    asset = od.build_products_asset("products", od.ProductSearch(max_products=7))
    shown = metadata(project.run([asset], octogen_at(shops)), "products")
    assert shown["octogen/truncated"] is True
    assert shown["octogen/summary"].startswith("**7 products**, cut off at max_products, ")


# A preview fits into the 375 pixels that the page of an asset has for it.


def test_products_are_shown_by_a_link_brand_price_and_stock(tmp_path: Path) -> None:
    boots = {"title": "Boots [new]", "brand": {"name": "Acme"}, "current_price": 40550.0}
    rows: list[dict[str, Any]] = [
        boots | {"in_stock": True},
        boots | {"in_stock": False},
        {"current_price": None},
    ]
    assert cells(shown(products(*rows), tmp_path)["octogen/preview"]) == [
        ["product", "brand", "price", "stock"],
        [f"[Boots \\[new\\]]({URL})", "Acme", "40,550.00 EUR", "in stock"],
        [f"[Boots \\[new\\]]({URL})", "Acme", "40,550.00 EUR", "sold out"],
        [f"[https://acme.example/bo…]({URL})", "", "", ""],
    ]


def test_a_title_or_an_address_of_a_shop_is_no_markup(tmp_path: Path) -> None:
    title = "![x](http://a.example) | `b` *c* <d>"
    rows = [
        {"title": title, "product_url": "https://acme.example/a(1)|b c"},
        {"title": title, "product_url": "javascript:alert(1)"},
    ]
    _, first, second = cells(shown(products(*rows), tmp_path)["octogen/preview"])
    text = r"!\[x\](http://a.example) \| \`b\` \*c\* \<d>"
    assert first[0] == f"[{text}](https://acme.example/a%281%29%7Cb%20c)"
    assert second[0] == r"![x]\(http://a.example) \| \`b\` \*c\* \<d>"


def test_times_are_shown_to_the_minute_and_what_does_not_fit_is_left_out(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "images": [[{"url": "https://a.example/1.png"}]],
            "at": [datetime(2026, 11, 29, 11, 5, 36, 960_123, tzinfo=UTC)],
            "code": ["x" * 60],
            "a": [1],
            "b": [2],
            "c": [3],
        }
    )
    assert cells(shown(frame, tmp_path)["octogen/preview"]) == [
        ["at", "code", "a", "b"],
        ["2026-11-29 11:05", f"{'x' * 23}…", "1", "2"],
    ]


@pytest.mark.long
def test_what_is_made_from_products_is_shown_in_a_few_columns(pipeline: Pipeline) -> None:
    pipeline.day()
    day = pipeline.day()
    headers = {
        name: cells(entries["octogen/preview"])[0]
        for name, entries in day.items()
        if "octogen/preview" in entries
    }
    assert headers == {
        "catalogs": ["catalog", "products", "as of"],
        "products": ["product", "brand", "price", "stock"],
        "changes": ["change", "product", "price", "stock"],
        "brands": ["brand", "products", "median", "in stock"],
        "details": ["product", "status", "brand", "price"],
        "history": ["product", "price", "from"],  # and until, where a row has ended
    }
    assert any(" → " in price for _, _, price, _ in cells(day["changes"]["octogen/preview"]))


# Numbers are plotted, so there are few, and those that say nothing are left out.


@pytest.mark.long
def test_the_numbers_of_a_read_are_those_that_somebody_plots(pipeline: Pipeline) -> None:
    pipeline.day()
    pipeline.day()
    last = pipeline.instance.get_latest_materialization_event(dg.AssetKey("products"))
    assert last
    assert last.asset_materialization
    numbers = {
        name
        for name, entry in last.asset_materialization.metadata.items()
        if isinstance(entry, dg.IntMetadataValue | dg.FloatMetadataValue)
    }
    assert numbers == {
        "dagster/row_count",
        "octogen/appeared",
        "octogen/disappeared",
        "octogen/price_changed",
        "octogen/cost_usd",
        "octogen/seconds",
        "octogen/price_p50_usd",
    }


@pytest.mark.slow
def test_the_other_numbers_of_a_read_are_one_entry_at_the_end(pipeline: Pipeline) -> None:
    read = pipeline.day()["products"]
    assert [*read][-1] == "octogen/metrics"
    assert {"pages", "requests", "charged_requests", "price_quantiles"} <= read[
        "octogen/metrics"
    ].keys()


@pytest.mark.long
def test_no_line_of_the_entry_widens_the_table(pipeline: Pipeline) -> None:
    """What is not wrapped would cut the preview off: 375 pixels are 44 characters."""
    pipeline.day()
    for entries in pipeline.day().values():
        lines = json.dumps(entries.get("octogen/metrics"), indent=2).splitlines()
        assert max(map(len, lines)) <= 44


def test_the_median_of_the_currency_of_most_products_is_plotted(project: Project) -> None:
    """The quantiles of others are there all the same."""
    with Sandbox(catalogs={"strada": 400}) as shops:
        octogen = octogen_at(shops, attempts=1)
        asset = od.build_products_asset("products", od.ProductSearch(catalogs=["strada"]))
        read = metadata(project.run([asset], octogen), "products")
    plotted = {name for name in read if name.startswith("octogen/price_p50_")}
    most = project.read("products")["currency"].value_counts(sort=True)["currency"][0]
    assert plotted == {f"octogen/price_p50_{most.lower()}"}
    assert len(read["octogen/metrics"]["price_quantiles"]) > len(plotted)


# Plots of all partitions together are a zigzag, so each partition has lines of its own.


@pytest.mark.slow
@pytest.mark.seed
def test_each_partition_has_a_line_of_its_snapshots(project: Project, shops: Sandbox) -> None:
    asset = od.build_products_asset("products", partitions_def=od.catalog_partitions)
    project.instance.add_dynamic_partitions("octogen_catalogs", ["northpeak", "strada"])
    rows: dict[str, list[int]] = {"northpeak": [], "strada": []}
    for _ in range(3):
        for catalog, counts in rows.items():
            result = project.run([asset], octogen_at(shops), partition_key=catalog)
            read = metadata(result, "products")
            counts.append(read["dagster/partition_row_count"])
        shops.next_day()
    header, of_rows, of_prices = cells(read["octogen/trend"])
    assert header == ["3 snapshots", "first", "", "last"]
    name, first, line, last = of_rows
    first_count, *_, last_count = rows["strada"]
    assert (name, first, last) == ("products", f"{first_count:,}", f"{last_count:,}")
    assert re.fullmatch("[▁▂▃▄▅▆▇█]{3}", line)
    assert of_prices[0] == "median"


def test_days_have_a_line_over_the_days_before(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    days = od.snapshot_days("2026-11-01")
    for day, rows in (("2026-11-02", 1), ("2026-11-03", 2), ("2026-11-04", 4)):
        read = shown(
            pl.DataFrame({"n": range(rows)}),
            tmp_path,
            instance,
            partitions_def=days,
            partition_key=day,
        )
    assert cells(read["octogen/trend"]) == [
        ["3 snapshots", "first", "", "last"],
        ["rows", "1", "▁▃█", "4"],
    ]


@pytest.mark.slow
def test_a_first_snapshot_has_no_line(pipeline: Pipeline) -> None:
    assert not [name for name, each in pipeline.day().items() if "octogen/trend" in each]


@pytest.mark.slow
def test_the_distribution_of_prices_is_a_line_of_each_currency(pipeline: Pipeline) -> None:
    read = pipeline.day()["products"]
    quantiles = read["octogen/metrics"]["price_quantiles"]["usd"]
    header, line, other = cells(read["octogen/prices"])
    assert other[0] == "none"
    assert header == ["", "5 %", "", "median", "95 %"]
    assert line[:2] == ["USD", f"{quantiles['p05']:.2f}"]
    assert re.fullmatch("[▁▂▃▄▅▆▇█]{8}", line[2])
    assert line[3:] == [f"{quantiles[share]:.0f}" for share in ("p50", "p95")]  # 100 and more


@pytest.mark.slow
def test_the_lines_show_the_last_twelve_snapshots(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    for rows in range(14):
        read = shown(pl.DataFrame({"n": range(rows)}), tmp_path, instance)
    assert cells(read["octogen/trend"]) == [
        ["12 snapshots", "first", "", "last"],
        ["rows", "2", "▁▂▂▃▄▄▅▅▆▇▇█", "13"],
    ]


def test_partitions_of_two_other_dimensions_have_lines_too(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    of_two = dg.MultiPartitionsDefinition(
        {
            "colour": dg.StaticPartitionsDefinition(["red"]),
            "size": dg.StaticPartitionsDefinition(["s", "m"]),
        }
    )
    for rows in (1, 2):
        read = shown(
            pl.DataFrame({"n": range(rows)}),
            tmp_path,
            instance,
            partitions_def=of_two,
            partition_key="red|s",
        )
    assert cells(read["octogen/trend"])[1] == ["rows", "1", "▁█", "2"]


@pytest.mark.slow
def test_what_a_brand_has_in_stock_is_active_and_what_costs_nothing_has_no_price(
    project: Project,
) -> None:
    @dg.asset
    def products() -> pl.DataFrame:
        prices = [math.nan, 0.0, 20.0, 20.0]
        rows = [product(f"{place}", price) for place, price in enumerate(prices)]
        rows[0]["is_active"], rows[1]["is_active"] = False, None
        return pl.DataFrame(rows).with_columns(brand=pl.lit("Acme"))

    project.run([products, od.build_product_brands_asset(products, name="brands")])
    [brand] = project.read("brands").rows()
    assert brand == ("Acme", "EUR", 4, 0.75, 20.0, 20.0, 20.0)
