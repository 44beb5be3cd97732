"""The price position: own prices beside those of competitors' pages, on any day."""

from __future__ import annotations

import base64
import math
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from statistics import fmean, median
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.frames.pictures import price_index_svg
from octogen_dagster.position.table import price_index, price_position, price_summary
from octogen_dagster.schemas import HISTORY_SCHEMA
from tests.histories import ASSET, day, make_history, product
from tests.prices_model import OF_CHOICE, position
from tests.projects import GivenProducts, given_frame
from tests.results import failure, is_retried, metadata

ACME = "https://www.acme.example"
ALL_STATUSES = (*OF_CHOICE, "not_found", "unpriced")


@pytest.fixture
def history(tmp_path: Path) -> pl.LazyFrame:
    """Three days of two shops."""
    yen = product("kimono", 9000.0, currency="JPY")
    acme = {
        day(1): [product("dress", 100.0), product("hat", 20.0), yen],
        day(2): [product("dress", 90.0), yen],
        day(3): [
            product("dress", 90.0, title="Linen dress"),
            product("scarf", 30.0, in_stock=False),
            product("belt", math.nan),
            yen,
        ],
    }
    make_history(tmp_path, acme)
    zen = product("zen", 80.0, product_url="https://zen.example/Dress?id=1")
    make_history(tmp_path, {day(1): [zen], day(3): [{**zen, "current_price": 120.0}]}, "zen")
    return od.scan_history(str(tmp_path), asset=ASSET)


def own(*rows: tuple[str, str | None, float | None], **columns: Any) -> pl.DataFrame:
    names = ["sku", "product_url", "price"]
    frame = pl.DataFrame(rows, schema=names, orient="row").with_columns(currency=pl.lit("EUR"))
    return frame.with_columns(**columns)


def past(*products: dict[str, Any]) -> pl.LazyFrame:
    """A history of one snapshot."""
    rows = [{"catalog_key": "acme", "valid_from": day(1), **each} for each in products]
    return pl.DataFrame(rows, schema={**HISTORY_SCHEMA}).lazy()


@pytest.mark.slow
def test_each_row_has_the_competitor_or_says_why_not(history: pl.LazyFrame) -> None:
    table = own(
        ("a", f"{ACME}/dress", 99.0),
        ("a", "https://zen.example/Dress?id=1", 99.0),
        ("b", f"{ACME}/hat", 10.0),
        ("c", f"{ACME}/kimono", 8000.0),
        ("d", f"{ACME}/scarf", 30.0),
        ("e", f"{ACME}/belt", 30.0),
        ("f", f"{ACME}/nothing", 1.0),
        ("g", None, 1.0),
    )
    found = price_position(history, table)
    assert found.select(table.columns).equals(table)
    assert found["status"].to_list() == [
        *("matched", "matched", "gone", "other_currency"),
        *("out_of_stock", "no_price", "not_found", "not_found"),
    ]
    dress = found.row(0, named=True)
    assert (
        dress
        | {
            "competitor_title": "Linen dress",
            "competitor_price": 90.0,
            "competitor_currency": "EUR",
            "competitor_in_stock": True,
            "competitor_since": day(2),  # a title is not a price
            "difference": 9.0,
            "index": 99 / 90,
            "competitors": 2,
            "cheapest_price": 90.0,
            "cheapest_url": f"{ACME}/dress",
            "rank": 2,
            "median_price": 105.0,
            "median_index": 99 / 105,
        }
        == dress
    )
    gone = found.row(2, named=True)
    assert (gone["competitor_price"], gone["difference"], gone["rank"]) == (20.0, None, None)


@pytest.mark.slow
def test_the_position_of_any_day_is_that_of_the_snapshot_then(history: pl.LazyFrame) -> None:
    table = own(("a", f"{ACME}/dress", 99.0), ("b", f"{ACME}/hat", 10.0), ("c", f"{ACME}/x", 1.0))
    columns = ("status", "competitor_price", "competitor_since")
    before = price_position(history, table, as_of=date(2026, 11, 1))
    assert set(before["status"]) == {"not_found"}
    first = price_position(history, table, as_of=day(1))
    assert first.select(columns).rows()[:2] == [
        ("matched", 100.0, day(1)),
        ("matched", 20.0, day(1)),
    ]
    second = price_position(history, table, as_of=date(2026, 11, 3))
    assert second.select(columns).rows()[:2] == [("matched", 90.0, day(2)), ("gone", 20.0, day(1))]


DRESS = f"{ACME}/dress"


@pytest.mark.parametrize("order", [1, -1])
def test_a_product_that_one_of_several_histories_still_has_is_there(order: int) -> None:
    dress = {**product("dress", 90.0), "valid_from": day(1)}
    gone = past(dress | {"valid_to": day(2)}, dress | {"valid_from": day(2), "valid_to": day(3)})
    both = pl.concat([gone, past(dress)][::order])
    table = own(("a", DRESS, 99.0))
    for history, status in ((both, "matched"), (gone, "gone")):
        [found] = price_position(history, table).to_dicts()
        assert (found["status"], found["competitor_since"]) == (status, day(1))
    [then] = price_position(gone, table, as_of=day(2)).to_dicts()
    assert (then["status"], then["competitor_since"]) == ("matched", day(1))


@pytest.mark.parametrize("url_type", [pl.Categorical, pl.Enum([DRESS]), pl.Null])
def test_a_position_has_its_types_whatever_those_of_the_own_table_are(url_type: Any) -> None:
    url = None if url_type is pl.Null else DRESS
    table = own(("a", url, 99.0)).with_columns(pl.col("product_url").cast(url_type))
    schema = price_position(past(product("dress", 90.0)), table).schema
    plain = price_position(past(product("dress", 90.0)), own(("a", DRESS, 99.0))).schema
    assert schema == {**plain, "product_url": table.schema["product_url"]}


END = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))


def test_the_position_at_the_end_of_time_is_the_last_one() -> None:
    table = own(("a", DRESS, 99.0))
    assert price_position(past(product("dress", 90.0)), table, as_of=END)["index"][0] == 1.1


def test_a_time_that_is_a_text_is_refused_with_what_to_give(tmp_path: Path) -> None:
    make_history(tmp_path, {day(1): [product("dress", 90.0)]})
    text: Any = "2026-11-01"
    told = r"'2026-11-01' is not a time.* datetime.datetime or a datetime.date"
    with pytest.raises(TypeError, match=told):
        price_position(past(), own(("a", DRESS, 99.0)), as_of=text)
    with pytest.raises(TypeError, match=told):
        od.scan_history(str(tmp_path), asset=ASSET, as_of=text)


SPELLINGS = [
    "HTTPS://Zen.EXAMPLE/Dress?id=1",
    "https://zen.example/Dress/?id=1",
    "https://zen.example/Dress?utm_source=mail&id=1&utm_medium=x#reviews",
    "  https://zen.example/Dress?id=1&gclid=abc ",
    "http://www.zen.example:80/Dress?id=1",
    "https://zen.example.:443/%44ress?GCLID=x&id=1&gbraid=2&ttclid=3",
]


@pytest.mark.parametrize("url", SPELLINGS)
def test_spellings_of_an_address_are_one_page(url: str) -> None:
    history = past(product("zen", 120.0, product_url="https://zen.example/Dress?id=1"))
    table = own(
        *(("a", url, 60.0), ("b", "https://zen.example/dress?id=1", 60.0)),
        ("c", "https://zen.example/Dress?id=2", 60.0),
    )
    assert price_position(history, table)["index"].to_list() == [0.5, None, None]


def test_parameters_have_no_order_and_characters_one_percent_code() -> None:
    history = past(
        product("zen", 90.0, product_url="https://www.zen.example/p/schöne%20röcke?b=2&a=1")
    )
    url = "https://zen.example/p/sch%c3%b6ne r%C3%B6cke?a=1&b=%32"
    assert price_position(history, own(("a", url, 90.0)))["index"].to_list() == [1.0]


@pytest.mark.slow
def test_pairs_are_summed_up_by_columns_of_the_own_table(history: pl.LazyFrame) -> None:
    table = own(
        ("a", f"{ACME}/dress", 99.0),
        ("a", "https://zen.example/Dress?id=1", 99.0),
        ("b", f"{ACME}/hat", 10.0),
        brand=pl.Series(["Linen", "Linen", "Hats"]),
    )
    summed = price_summary(price_position(history, table), "brand")
    assert summed.rows(named=True) == [
        {"brand": "Hats", "skus": 1, "pairs": 1, "matched": 0}
        | dict.fromkeys(("cheaper_percent", "more_expensive_percent", "median_index")),
        {"brand": "Linen", "skus": 1, "pairs": 2, "matched": 2}
        | {
            "cheaper_percent": 50.0,
            "more_expensive_percent": 50.0,
            "median_index": (1.1 + 99 / 120) / 2,
        },
    ]


@pytest.mark.slow
def test_the_index_over_time_is_a_frame_and_a_picture(history: pl.LazyFrame) -> None:
    table = own(("a", f"{ACME}/dress", 90.0), ("a", "https://zen.example/Dress?id=1", 90.0))
    index = price_index(history, table)
    first = date(2026, 11, 1)
    assert index["day"].to_list() == [first, first + timedelta(1), first + timedelta(2)]
    expected = [math.sqrt(0.9 * 1.125), math.sqrt(1 * 1.125), math.sqrt(1 * 0.75)]
    assert index["index"].to_list() == pytest.approx(expected)
    assert index["more_expensive_percent"].to_list() == [50.0, 50.0, 0.0]
    assert price_index(history, table, days=1).equals(index.tail(1))
    later = price_index(history, table, until=day(5))
    assert later.head(3).equals(index)
    assert later["day"].to_list()[3:] == [first + timedelta(3), first + timedelta(4)]
    assert later["index"].to_list()[3:] == [index["index"][-1]] * 2
    picture = ElementTree.fromstring(price_index_svg(index))
    [line] = picture.iter("{http://www.w3.org/2000/svg}polyline")
    assert len(line.attrib["points"].split()) == 3
    nothing = price_index(history, own(("a", f"{ACME}/nothing", 1.0)))
    assert nothing["index"].to_list() == [None] * 3
    ElementTree.fromstring(price_index_svg(nothing))


@pytest.mark.slow
def test_a_table_that_lacks_or_takes_a_column_is_refused(history: pl.LazyFrame) -> None:
    table = own(("a", f"{ACME}/dress", 90.0))
    with pytest.raises(ValueError, match="has no column 'price'"):
        price_position(history, table.drop("price"))
    with pytest.raises(ValueError, match="has a column 'rank', which conflicts with a column"):
        price_position(history, table.with_columns(rank=1))


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("product_url", None, "has no column 'product_url'"),
        ("price", "9,90", "'9,90'"),
        ("rank", 1, "has a column 'rank'"),
    ],
)
def test_an_own_table_that_does_not_fit_fails_the_run_without_a_retry(
    column: str, value: Any, text: str, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    @dg.asset
    def articles() -> pl.DataFrame:
        table = own(("a", f"{ACME}/dress", 90.0)).drop(column, strict=False)
        return table if value is None else table.with_columns(pl.lit(value).alias(column))

    shop = GivenProducts(tmp_path, instance)
    position = od.build_price_position_asset(shop.history, articles)
    shop.following = [articles, position]
    shop.frame = given_frame(day(1), [product("dress", 90.0)])
    given = [shop.products, shop.history, *shop.following]
    result = shop.run(given, raise_on_error=False)
    assert text in failure(result)
    assert not is_retried(result)


@pytest.mark.slow
@pytest.mark.parametrize("of_asset", [True, False])
def test_an_asset_has_the_position_and_shows_it(
    tmp_path: Path, instance: dg.DagsterInstance, of_asset: bool
) -> None:
    @dg.asset(io_manager_def=dg.mem_io_manager)
    def articles() -> pl.DataFrame:
        return table

    table = own(
        ("a", f"{ACME}/dress", 99.0),
        ("b", f"{ACME}/hat", 10.0),
        ("c", f"{ACME}/nothing", 1.0),
        brand=pl.Series(["<b>Linen</b>", "Hats", None]),
    )
    shop = GivenProducts(tmp_path, instance, od.catalog_partitions)
    brands = od.build_product_brands_asset(shop.products)
    position = od.build_price_position_asset([shop.history], articles.key if of_asset else table)
    shop.following = [brands, articles, position]
    # A catalog without a snapshot yet keeps the others from nothing.
    instance.add_dynamic_partitions("octogen_catalogs", ["acme", "zen"])
    for number, price in ((1, 100.0), (2, 90.0)):
        shop.frame = given_frame(day(number), [product("dress", price, brand={"name": "Linen"})])
        made = shop.update(shop.products, shop.history, brands, partition_key="acme")
    done = shop.update(articles, position)
    stored = shop.read("octogen_products_position")
    assert stored["status"].to_list() == ["matched", "not_found", "not_found"]
    shown = metadata(done, "octogen_products_position")
    assert (shown["octogen/matched"], shown["octogen/not_found"]) == (1, 2)
    assert shown["octogen/median_index"] == pytest.approx(1.1)
    columns = {each.name: each.description for each in shown["dagster/column_schema"].columns}
    assert columns["rank"] == (
        "The rank of your price: 1 if no competitor is cheaper, 2 if one competitor is cheaper, "
        "and so on; null if you have no price or no competitor matches."
    )
    assert columns["brand"] is None
    assert "\\<b>Linen" in str(shown["octogen/by_brand"])
    assert f"{ACME}/hat" in str(shown["octogen/unmatched"])
    shown |= metadata(made, "octogen_products_brands")
    for name in ("price_index", "cheaper_and_more_expensive", "stock_by_brand"):
        picture = str(shown[f"octogen/{name}"])
        ElementTree.fromstring(base64.b64decode(picture.rpartition(",")[2].rstrip(")")))
    assert len(str(shown["octogen/price_index"])) < 1000  # a longer one is behind a link


def table_rows(markdown: str) -> list[list[str]]:
    """The cells of a table of Markdown, whose escaped bars stay as `{BAR}`."""
    lines = markdown.replace(r"\|", r"\{BAR}").splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def labels(markdown: str) -> list[str | None]:
    """The texts of a picture."""
    picture = ElementTree.fromstring(base64.b64decode(markdown.rpartition(",")[2].rstrip(")")))
    return [each.text for each in picture.iter("{http://www.w3.org/2000/svg}text")]


def of_day(history: pl.LazyFrame, number: int) -> list[dict[str, Any]]:
    """The products that were known at the end of a day, as they were then or seen last."""
    rows = history.filter(pl.col("valid_from") <= day(number)).sort("valid_from").collect()
    last = rows.unique(["catalog_key", "uuid"], keep="last", maintain_order=True)
    return [
        row
        | {
            "valid_to": None
            if row["valid_to"] and row["valid_to"] > day(number)
            else row["valid_to"]
        }
        for row in last.to_dicts()
    ]


def shares(rows: Sequence[dict[str, Any]]) -> tuple[int, float | None, float | None, float | None]:
    """The pairs that match, the shares of them that are cheaper and dearer, the median index."""
    index = [each["index"] for each in rows if each["index"]]
    if not index:
        return 0, None, None, None
    percent = [
        100 * sum(each) / len(index) for each in ([i < 1 for i in index], [i > 1 for i in index])
    ]
    return len(index), *percent, median(index)


def cells_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The cells of a category in a table of them."""
    matched, cheaper, dearer, middle = shares(rows)
    percents = ["" if each is None else f"{each:.0f} %" for each in (cheaper, dearer)]
    return [f"{matched} of {len(rows)}", *percents, f"{middle:.2f}" if middle else ""]


@pytest.mark.slow
def test_each_number_of_its_page_is_that_of_a_model(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    days = {
        day(number): [
            product(
                f"chelsea-boots-{at}",
                40.0 + at * number,
                title=f"Boots | {at}",
                in_stock=at % 5 != 0,
            )
            for at in range(20)
            if (at + number) % 7
        ]
        for number in (1, 2, 3)
    }
    days[day(3)][0] |= {"currency": None}
    days[day(3)][1] |= {"current_price": 0.0}
    make_history(tmp_path, days)
    history = od.scan_history(str(tmp_path), asset=ASSET)
    table = own(
        ("near", f"{ACME}/en/boots-7-chelsea", 50.0),
        *(
            (f"s{at // 2}", f"{ACME}/chelsea-boots-{at}?utm_source=x", 20.0 + 5 * at)
            for at in range(20)
        ),
        *(("none", f"{ACME}/chelsea-boots-3", None), ("far", "https://else.example/boots", 9.0)),
    ).with_columns(
        pl.col("product_url").cast(pl.Categorical),
        category=pl.Series([f"c{(at + 1) // 2}" for at in range(23)]),
    )

    shop = GivenProducts(tmp_path, instance, od.catalog_partitions)
    asset = od.build_price_position_asset(shop.history, table)
    shop.following = [asset]
    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    shown = metadata(shop.update(asset), "octogen_products_position")
    pairs = [
        a | b
        for a, b in zip(
            table.to_dicts(), position(of_day(history, 3), table.to_dicts()), strict=True
        )
    ]
    counted = Counter(each["status"] for each in pairs)
    assert {*counted} == {*ALL_STATUSES} - {"other_currency"}
    entries = {name: f"octogen/{name}" for name in ALL_STATUSES}
    assert {name: shown[each] for name, each in entries.items() if each in shown} == counted
    matched, cheaper, dearer, middle = shares(pairs)
    assert shown["octogen/median_index"] == pytest.approx(middle)
    assert shown["octogen/summary"] == (
        f"**{matched} of 23 pairs matched**: cheaper in {cheaper:.0f} %, more expensive in "
        f"{dearer:.0f} %; median index {middle:.2f}; {counted['gone']} gone, "
        f"{counted['not_found']} not found"
    )
    dearest = sorted((each for each in pairs if each["index"]), key=lambda each: -each["index"])[:5]
    assert table_rows(shown["octogen/preview"]) == [
        [
            each["sku"],
            f"[Boots \\{{BAR}} {number}]({each['product_url']})",
            f"{each['price']:.2f}",
            f"{each['price'] - each['difference']:.2f} EUR",
            f"{each['index']:.2f}",
        ]
        for each in dearest
        for number in [each["product_url"].rpartition("-")[2].partition("?")[0]]
    ]
    by_category = [
        [name, *cells_of([each for each in pairs if each["category"] == name])]
        for name in (
            "c1",
            "c10",
            "c11",
            "c2",
            "c3",
            "c4",
            "c5",
            "c6",
            "c7",
            "c8",
        )  # c0 has one pair
    ]
    assert table_rows(shown["octogen/by_category"]) == by_category
    unmatched = [each for each in pairs if each["status"] != "matched"]
    unmatched.sort(key=lambda each: each["status"] != "not_found")
    found = table_rows(shown["octogen/unmatched"])
    assert found == [
        [
            each["sku"],
            f"[{end}]({each['product_url']})",
            each["status"].replace("_", " "),
        ]
        for each in unmatched[: len(found)]
        for end in [each["product_url"].rpartition("/")[2]]
    ]
    by_day = [position(of_day(history, number), table.to_dicts()) for number in (1, 2, 3)]
    index = [
        math.exp(fmean(math.log(each["index"]) for each in rows if each["index"]))
        for rows in by_day
    ]
    assert price_index(history, table)["index"].to_list() == pytest.approx(index)
    assert labels(shown["octogen/price_index"]) == [
        *("price index", f"{max(index):.3f}", f"{min(index):.3f}", "2026-11-01", "2026-11-03")
    ]
    percents = [each for rows in by_day for each in shares(rows)[1:3] if each is not None]
    assert labels(shown["octogen/cheaper_and_more_expensive"])[2:4] == [
        f"{max(percents):.0f}",
        f"{min(percents):.0f}",
    ]
    make_history(tmp_path, {day(5): days[day(3)]})  # read again, unchanged
    shown = metadata(shop.update(asset), "octogen_products_position")
    assert labels(shown["octogen/price_index"])[-1] == "2026-11-05"


@pytest.mark.slow
@pytest.mark.timeout(120, method="thread")
def test_the_histories_of_three_hundred_catalogs_have_a_position(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    names = [f"shop-{number}" for number in range(300)]
    shop = GivenProducts(tmp_path, instance, dg.StaticPartitionsDefinition(names))
    folder = tmp_path / shop.history.key.path[-1]
    folder.mkdir()
    for name in names:
        dress = product("dress", 90.0, product_url=f"https://{name}.example/dress")
        past({**dress, "catalog_key": name}).collect().write_parquet(folder / f"{name}.parquet")
    table = own(*((name, f"https://{name}.example/dress", 99.0) for name in names))
    shop.following = [od.build_price_position_asset(shop.history, table)]
    shop.update(*shop.following)
    assert shop.read("octogen_products_position")["status"].to_list() == ["matched"] * 300


def test_before_the_first_snapshot_no_page_is_found(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """A catalog becomes a partition when a sensor finds it, and automation may be earlier."""
    shop = GivenProducts(tmp_path, instance, od.catalog_partitions)
    table = own(("a", f"{ACME}/dress", 99.0))
    shop.following = [od.build_price_position_asset(shop.history, table)]
    shop.update(*shop.following)
    assert shop.read("octogen_products_position")["status"].to_list() == ["not_found"]


@pytest.mark.parametrize("limit", [49, 50])
def test_checks_warn_if_many_pairs_are_undercut_or_have_no_match(
    tmp_path: Path, instance: dg.DagsterInstance, limit: float
) -> None:
    shop = GivenProducts(tmp_path, instance)
    rows = [product(name, 90.0, product_url=f"{ACME}/{name}") for name in ("dress", "hat")]
    shop.frame = given_frame(day(1), rows)
    pages = [("a", "dress", 99.0), ("b", "hat", 80.0), ("c", "none", 9.0), ("d", "no", 9.0)]
    table = own(*((sku, f"{ACME}/{page}", price) for sku, page, price in pages))
    limits: dict[str, Any] = dict.fromkeys(("undercut_percent", "unmatched_percent"), limit)
    asset = od.build_price_position_asset(shop.history, table, **limits)
    shop.following = [asset, *od.build_snapshot_checks(asset, max_age=None)]
    checks = {each.check_name: each for each in shop.update().get_asset_check_evaluations()}
    assert {name: checks[name].passed for name in limits} == dict.fromkeys(limits, limit == 50)
    assert {checks[name].severity for name in limits} == {dg.AssetCheckSeverity.WARN}
    assert "50 %" in (checks["undercut_percent"].description or "")
