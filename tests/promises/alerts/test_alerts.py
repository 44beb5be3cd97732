"""Alerts: events of a history, each of them once, and told to somebody once."""

from __future__ import annotations

import random
import re
import resource
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.alerts import (
    Appeared,
    BackInStock,
    Disappeared,
    OutOfStock,
    PriceDropped,
    PriceRose,
    Undercut,
)
from octogen_dagster.history.files import forget_snapshot
from octogen_dagster.schemas import ALERTS_SCHEMA
from tests.histories import ASSET, day, product, without_brands
from tests.limits import limited
from tests.projects import GivenProducts, given_frame
from tests.results import metadata, stored

ALERTS = "octogen_products_alerts"
RULES = [
    PriceDropped(percent=10),
    PriceRose(percent=10),
    BackInStock(),
    OutOfStock(),
    Appeared(),
    Disappeared(),
]
IS_ACME = pl.col("brand").struct.field("name") == "Acme"
Row = dict[str, Any]


class Shop(GivenProducts):
    """Products that are given, with their history, alerts and checks."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, rules: Sequence[Any]) -> None:
        super().__init__(folder, instance)
        self.follow(rules)

    def follow(self, rules: Sequence[Any]) -> None:
        self.alerts = od.build_price_alerts_asset(self.history, rules)
        self.following = [self.alerts, *od.build_snapshot_checks(self.alerts, max_age=None)]

    def store(self, at: datetime, *products: Row, alerts: bool = True) -> dict[str, Any]:
        """Store the products as of a time, with their history and, if asked, their alerts."""
        self.frame = given_frame(at, products)
        return self.shown(self.products, self.history, *([self.alerts] if alerts else []))

    def shown(self, *assets: dg.AssetsDefinition) -> dict[str, Any]:
        """Materialize assets, and return the metadata of the last one."""
        self.result = self.update(*assets)
        return metadata(self.result, assets[-1].key.path[-1])

    def events(self) -> list[tuple[Any, ...]]:
        columns = ("rule", "uuid", "at", "before", "after")
        found = self.read(ALERTS).select(columns).rows()
        return sorted(found, key=lambda row: (row[2], row[0], row[1]))


def moved(shown: dict[str, Any]) -> tuple[int, ...]:
    """The events that appeared and that vanished, of which none is no entry."""
    names = [f"octogen/events_{each}" for each in ("appeared", "vanished")]
    assert 0 not in [shown[name] for name in names if name in shown]
    return tuple(shown.get(name, 0) for name in names)


@pytest.fixture
def shop(tmp_path: Path, instance: dg.DagsterInstance) -> Shop:
    return Shop(tmp_path, instance, RULES)


@pytest.mark.slow
def test_an_event_says_what_was_before_and_since_when(shop: Shop) -> None:
    dress = product("dress", 120.0, brand={"name": "Acme"})
    shop.store(day(1), dress, product("hat", 20.0))
    shop.store(day(2), {**dress, "title": "Linen"}, product("hat", 20.0))
    shown = shop.store(day(3), {**dress, "current_price": 96.0}, product("hat", 20.0))
    [event] = shop.read(ALERTS).rows(named=True)
    assert shop.read(ALERTS).schema == ALERTS_SCHEMA
    assert len(event.pop("alert_id")) == 32
    assert event == {
        "rule": "price_dropped",
        "catalog_key": "acme",
        "uuid": "dress",
        "product_url": "https://www.acme.example/dress",
        "title": "Dress",
        "brand_name": "Acme",
        "at": day(3),
        "since": day(1),
        "before": 120.0,
        "after": 96.0,
        "change_percent": -20.0,
        "currency": "EUR",
        "in_stock": True,
        **dict.fromkeys(("sku", "price", "rank_before", "rank")),
    }
    assert (shown["octogen/price_dropped"], shown["octogen/events_appeared"]) == (1, 1)
    link = "[Dress](https://www.acme.example/dress)"
    assert (
        f"| price dropped | {link} | 120.00 → 96.00 EUR | -20 % |"
        in shown["octogen/largest_alerts"]
    )


@pytest.mark.slow
def test_each_rule_finds_what_it_is_named_after_and_a_first_snapshot_is_no_flood(
    shop: Shop,
) -> None:
    hat = product("hat", 20.0)
    shop.store(day(1), product("dress", 100.0), hat)
    assert shop.events() == []
    shop.store(day(2), product("dress", 100.0, in_stock=False), hat, product("coat", 50.0))
    shop.store(day(3), product("dress", 80.0), product("coat", 60.0))
    shown = shop.store(day(4), product("dress", 80.0, currency="USD"), product("coat", 60.0), hat)
    assert shown["octogen/summary"] == (
        "**1 new, 1 in another currency**; 3 products; 2 new events"
    )
    assert shop.events() == [
        ("appeared", "coat", day(2), None, 50.0),
        ("out_of_stock", "dress", day(2), 100.0, 100.0),
        ("back_in_stock", "dress", day(3), 100.0, 80.0),
        ("disappeared", "hat", day(3), 20.0, None),
        ("price_dropped", "dress", day(3), 100.0, 80.0),
        ("price_rose", "coat", day(3), 50.0, 60.0),
        ("appeared", "hat", day(4), 20.0, 20.0),
        ("currency_changed", "dress", day(4), None, 80.0),
    ]


def shown_table(table: str) -> list[list[str]]:
    """The cells of a table of Markdown, without the addresses of links."""
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()[2:]]
    return [[re.sub(r"\[(.*)\]\(.*\)", r"\1", cell) for cell in row] for row in rows]


@pytest.mark.slow
def test_each_number_on_the_page_is_that_of_a_model(shop: Shop) -> None:
    drawn = random.Random(7)
    states = [
        (price, stock) for price in (80.0, 90.0, 100.0, 125.0, None) for stock in (True, False)
    ]
    names = [f"item{number}" for number in range(60)]
    before = {name: drawn.choice(states) for name in names[:50]}
    after = {name: drawn.choice(states) for name in names[10:]}
    for number, snapshot in enumerate((before, after), start=1):
        of_day = [product(name, price, in_stock=stock) for name, (price, stock) in snapshot.items()]
        shown = shop.store(day(number), *of_day)
    both = {name: (before[name], after[name]) for name in before.keys() & after.keys()}
    priced = {name: (old[0], new[0]) for name, (old, new) in both.items() if old[0] and new[0]}
    changes = {name: 100 * new / old - 100 for name, (old, new) in priced.items()}
    found = {
        "price_dropped": [name for name, change in changes.items() if change <= -10],
        "price_rose": [name for name, change in changes.items() if change >= 10],
        "back_in_stock": [name for name, (old, new) in both.items() if new[1] > old[1]],
        "out_of_stock": [name for name, (old, new) in both.items() if new[1] < old[1]],
        "appeared": names[50:],
        "disappeared": names[:10],
    }
    assert {name: shown[f"octogen/{name}"] for name in found} == {
        name: len(products) for name, products in found.items()
    }
    words = ("dropped", "rose", "back in stock", "sold out", "new", "gone")
    said = [f"{len(each)} {word}" for each, word in zip(found.values(), words, strict=True)]
    events = [(rule, name) for rule, products in found.items() for name in products]
    of_run = f"**{', '.join(said)}**; 50 products; {len(events)} new events"
    assert shown["octogen/summary"] == of_run
    assert shown["octogen/events_appeared"] == shown["dagster/row_count"] == len(events)
    events.sort(key=lambda event: (-abs(changes.get(event[1], 0)), *event))
    rows = shown_table(shown["octogen/largest_alerts"])
    assert 5 <= len(rows) <= 10
    assert rows == [
        [
            rule.replace("_", " "),
            name.title(),
            "{:.2f} → {:.2f} EUR".format(*priced[name]),
            f"{changes[name]:+.0f} %",
        ]
        for rule, name in events[: len(rows)]
    ]


@pytest.mark.slow
def test_an_event_has_the_last_known_currency_and_whether_the_product_is_sold(shop: Shop) -> None:
    shop.store(day(1), product("dress", 100.0, currency="USD"), product("hat", None))
    unknown = product("dress", 70.0, currency=None)
    shop.store(day(2), unknown, product("hat", None, is_active=False))
    events = shop.read(ALERTS).sort("rule").select("rule", "uuid", "currency", "in_stock").rows()
    assert events == [
        ("out_of_stock", "hat", "EUR", False),
        ("price_dropped", "dress", "USD", True),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", [None, pl.Categorical(), pl.Enum(["Acme", "acme", "dress", "hat"])]
)
def test_a_table_of_ones_own_without_brands_or_with_texts_of_other_types_has_alerts(
    shop: Shop, text: pl.DataType | None
) -> None:
    for number, price in ((1, 100.0), (2, 50.0)):
        products = [product("dress", price), product("hat", 9.0)]
        shop.frame = given_frame(day(number), products).drop("brand")
        if text is not None:
            texts = pl.col("catalog_key", "uuid").cast(text)
            shop.frame = shop.frame.with_columns(texts, brand=pl.lit("Acme", text))
        shop.update()
    assert shop.events() == [("price_dropped", "dress", day(2), 100.0, 50.0)]
    assert shop.read(ALERTS)["brand_name"].to_list() == [text and "Acme"]


@pytest.mark.slow
def test_brand_is_null_in_alerts_of_a_history_that_was_stored_without_brands(shop: Shop) -> None:
    for number in (1, 2):
        shop.store(day(number), product("dress", 100.0 / number, brand={"name": "Acme"}))
    without_brands(shop.folder)
    (shop.folder / f"{ALERTS}.parquet").unlink()
    shop.shown(shop.alerts)
    assert shop.read(ALERTS).select("at", "brand_name").rows() == [(day(2), None)]
    shop.store(day(3), product("dress", 30.0, brand={"name": "Acme"}))
    assert shop.read(ALERTS).select("at", "brand_name").rows()[1:] == [(day(3), "Acme")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "found"), [(pl.__version__, ["dress", "hat"]), ("9", ["dress"])]
)
def test_a_rule_is_another_one_if_its_meaning_is_and_not_for_another_version_of_polars(
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    found: list[str],
) -> None:
    """Polars 2.1 prints and serializes the `in` of SQL otherwise than 2.0."""

    def rule(title: str) -> PriceDropped:
        titles = [*map(str, range(10)), title, *map(str, range(10, 20))]
        return PriceDropped(where=pl.col("title").is_in(["Dress", *titles, "Coat"]))

    shop = Shop(tmp_path, instance, [rule("Boot")])
    for number in (1, 2):
        shop.store(day(number), product("dress", 9.0 / number), product("hat", 9.0 / number))
    monkeypatch.setattr(pl, "__version__", version)
    shop.follow([rule("Hat")])
    shop.shown(shop.alerts)
    assert [event[1] for event in shop.events()] == found


@pytest.mark.slow
def test_what_is_late_or_forgotten_changes_the_events_and_the_metadata_say_how_many(
    shop: Shop,
) -> None:
    shop.store(day(1), product("dress", 100.0))
    shop.store(day(3), product("dress", 80.0))
    ids = dict(shop.read(ALERTS).select("at", "alert_id").rows())
    late = shop.store(day(2), product("dress", 50.0))
    assert late["octogen/summary"] == "**1 rose**; 1 product; 2 new events, 1 vanished"
    assert moved(late) == (2, 1)
    assert [event[:3] for event in shop.events()] == [
        ("price_dropped", "dress", day(2)),
        ("price_rose", "dress", day(3)),
    ]
    forget_snapshot(str(shop.folder), day(2), asset=ASSET)
    forgotten = shop.shown(shop.alerts)
    assert moved(forgotten) == (1, 2)
    assert dict(shop.read(ALERTS).select("at", "alert_id").rows()) == ids


@pytest.mark.slow
def test_a_rule_is_about_the_products_that_it_names(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    is_shoe = pl.col("category_path").list.contains("Shoes")
    brand = pl.col("brand").struct.field("name")
    rules = [
        PriceDropped(name="shoes", where=is_shoe & (pl.col("current_price") > 50)),
        PriceDropped(name="zen", where=brand == "Zen"),
        Disappeared(where=pl.col("title").str.contains("o") & is_shoe & (brand == "Acme")),
    ]
    shop = Shop(tmp_path, instance, rules)
    shoes = {"category_path": ["Women", "Shoes"], "brand": {"name": "Acme"}}
    products = [
        product("boot", 100.0, **shoes),
        product("clog", 50.0, **shoes),
        product("hat", 9.0, category_path=["Hats"], brand={"name": "Zen"}),
    ]
    shop.store(day(1), *products)
    shop.store(day(2), *[{**each, "current_price": each["current_price"] - 4} for each in products])
    assert [event[:2] for event in shop.events()] == [("shoes", "boot"), ("zen", "hat")]
    (shown,) = shop.result.asset_materializations_for_node(ALERTS)
    assert "**1 shoes, 1 zen**; 3 products" in str(shown.metadata["octogen/summary"].value)
    shop.store(day(3), product("coat", 1.0, brand=None, category_path=None))
    assert [event[:2] for event in shop.events()][2:] == [
        ("disappeared", "boot"),
        ("disappeared", "clog"),
    ]
    shop.follow([PriceDropped(where=pl.col("colour") == "red")])
    with pytest.raises(dg.Failure, match=r"'price_dropped' .*colour"):
        shop.store(day(4), product("coat", 0.5))


@pytest.mark.slow
def test_the_lowest_price_dates_from_the_last_time_it_was_asked(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    shop = Shop(tmp_path, instance, [PriceDropped(against="lowest", days=10)])
    for number, price in enumerate([100.0, 80.0, 100.0, 80.0, 100.0, 70.0], start=1):
        shop.store(day(number), product("dress", price))
    told = shop.read(ALERTS).sort("at").select("at", "since", "before", "after")
    assert told.rows() == [(day(2), day(1), 100.0, 80.0), (day(6), day(4), 80.0, 70.0)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("limits", "passes"), [({}, False), ({"max_products": 1}, True), ({"max_percent": 60.0}, True)]
)
def test_a_check_for_each_rule_warns_of_the_last_snapshot(
    tmp_path: Path, instance: dg.DagsterInstance, limits: dict[str, Any], passes: bool
) -> None:
    shop = Shop(tmp_path, instance, [PriceDropped(**limits), OutOfStock()])
    shop.store(day(1), product("dress", 100.0), product("hat", 20.0))
    shop.store(day(2), product("dress", 80.0), product("hat", 20.0))
    checks = {each.check_name: each for each in shop.result.get_asset_check_evaluations()}
    assert checks.keys() == {"price_dropped", "out_of_stock"}
    assert checks["price_dropped"].passed is passes
    assert checks["price_dropped"].severity is dg.AssetCheckSeverity.WARN
    assert checks["out_of_stock"].passed
    shop.store(day(3), product("dress", 80.0), product("hat", 20.0))
    assert all(each.passed for each in shop.result.get_asset_check_evaluations())


@pytest.mark.long
@pytest.mark.parametrize("of_days", [False, True])
def test_alerts_have_the_partitions_of_their_history(
    tmp_path: Path, instance: dg.DagsterInstance, of_days: bool
) -> None:
    partitions = od.catalog_days("2026-11-01") if of_days else od.catalog_partitions
    shop = GivenProducts(tmp_path, instance, partitions)
    rules = [PriceDropped(where=pl.col("gender") == "women"), Disappeared(where=IS_ACME)]
    alerts = od.build_price_alerts_asset(shop.history, rules)
    shop.following = [alerts]
    instance.add_dynamic_partitions("octogen_catalogs", ["acme"])
    for number, price in enumerate((100.0, 90.0, 80.0), start=1):
        products = [product("dress", price, gender="women")]
        if number < 3:
            products.append(product("hat", 9.0, gender="men", brand={"name": "Acme"}))
        shop.frame = given_frame(day(number), products)
        shop.update(shop.products, partition_key=f"acme|2026-11-0{number}" if of_days else "acme")
        for asset in (shop.history, alerts):
            shop.update(asset, partition_key="acme")
    assert alerts.partitions_def == shop.history.partitions_def == od.catalog_partitions
    table = shop.read(ALERTS, "acme")
    dropped = [("dress", 90.0), ("dress", 80.0)]
    assert table.select("uuid", "after", "brand_name").rows() == [
        *((*event, None) for event in dropped),
        ("hat", None, "Acme"),
    ]


class Told:
    """What a sensor told of."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, datetime]]] = []
        self.fails = False

    def notify(self, events: pl.DataFrame) -> None:
        if self.fails:
            raise RuntimeError("The network is down.")
        assert events.schema == ALERTS_SCHEMA
        self.calls.append(events.select("rule", "at").rows())


@pytest.mark.long
def test_a_sensor_tells_of_each_event_once(shop: Shop) -> None:
    told = Told()
    sensor = od.build_alert_sensor(shop.alerts, told.notify)
    resources = stored(shop.folder)

    def tick(cursor: str | None = None) -> str | None:
        with dg.build_sensor_context(shop.instance, cursor=cursor, resources=resources) as context:
            sensor(context)
            return context.cursor

    assert tick() is None
    assert told.calls == []
    shop.store(day(1), product("dress", 100.0))
    shop.store(day(2), product("dress", 80.0))
    told.fails = True
    with pytest.raises(RuntimeError, match="network"):
        tick()
    told.fails = False
    cursor = tick()
    assert told.calls == [[("price_dropped", day(2))]]
    shop.store(day(3), product("dress", 60.0, in_stock=False))
    cursor = tick(cursor)
    assert told.calls[1:] == [[("out_of_stock", day(3)), ("price_dropped", day(3))]]
    # What is late is told of, although it is older; what is computed again is not.
    shop.store(day(2, hour=18), product("dress", 70.0))
    forget_snapshot(str(shop.folder), day(3), asset=ASSET)
    shop.shown(shop.alerts)
    shop.store(day(3), product("dress", 61.0, in_stock=False))
    for lost in (cursor, None):
        tick(lost)
    assert told.calls[2:] == [[("price_dropped", day(2, hour=18))]]


@pytest.mark.slow
def test_a_sensor_tells_of_more_catalogs_than_files_may_be_open(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    names = [f"shop{number}" for number in range(300)]

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(names))
    def products() -> None: ...

    alerts = od.build_price_alerts_asset(od.build_product_history_asset(products), [PriceDropped()])
    folder = tmp_path / "products_alerts"
    folder.mkdir()
    for name in names:
        event = {"alert_id": name, "rule": "price_dropped", "catalog_key": name, "at": day(1)}
        pl.DataFrame([event], schema=ALERTS_SCHEMA).write_parquet(folder / f"{name}.parquet")
        instance.report_runless_asset_event(dg.AssetMaterialization(alerts.key, partition=name))
    told: list[pl.DataFrame] = []
    resources = stored(tmp_path)
    with (
        limited(resource.RLIMIT_NOFILE, 256),
        dg.build_sensor_context(instance, resources=resources) as context,
    ):
        od.build_alert_sensor(alerts, told.append)(context)
    [events] = told
    assert sorted(events["catalog_key"]) == sorted(names)


def test_a_sensor_keeps_ids_by_the_size_of_the_table(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """The events of a day vanish when the next ones are found, again and again."""
    alerts = od.build_price_alerts_asset(
        od.build_product_history_asset(od.build_products_asset("products")), [PriceDropped()]
    )
    sizes, calls, size = list[int](), list[list[str]](), 60_000
    sensor = od.build_alert_sensor(alerts, lambda events: calls.append(sorted(events["alert_id"])))

    def tick(number: int) -> list[str]:
        ids = pl.select(pl.format("{}-{}", number, pl.int_range(size))).to_series()
        event = {"rule": "price_dropped", "at": day(number)}
        table = pl.DataFrame({"alert_id": ids, **event}, schema_overrides=ALERTS_SCHEMA)
        missing = [pl.lit(None, kind).alias(name) for name, kind in ALERTS_SCHEMA.items()]
        full = table.with_columns(each for each in missing if each.meta.output_name() not in table)
        full.select(ALERTS_SCHEMA.names()).write_parquet(tmp_path / "products_alerts.parquet")
        instance.report_runless_asset_event(dg.AssetMaterialization(alerts.key))
        with dg.build_sensor_context(instance, resources=stored(tmp_path)) as context:
            sensor(context)
        (kept,) = tmp_path.glob(".products_alerts*")
        sizes.append(len(pl.read_parquet(kept)))
        return sorted(ids)

    told = [tick(number) for number in range(1, 6)]
    assert calls == told
    assert max(sizes) <= size + 100_000
    assert sizes[-1] == sizes[-2]
    tick(4)  # recomputed
    assert calls == told


def test_a_sensor_repeats_only_events_whose_ids_were_not_stored(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    """A tick ends after its events were sent, and before that is stored."""
    alerts = od.build_price_alerts_asset(
        od.build_product_history_asset(od.build_products_asset("products")), [PriceDropped()]
    )
    calls, dies = list[list[str]](), [False, True, False, False]

    def notify(events: pl.DataFrame) -> None:
        calls.append(events["alert_id"].to_list())
        if dies.pop(0):
            raise KeyboardInterrupt

    sensor = od.build_alert_sensor(alerts, notify)

    def tick(*ids: str) -> None:
        events = [{"alert_id": each, "rule": "price_dropped", "at": day(1)} for each in ids]
        table = pl.DataFrame(events, schema=ALERTS_SCHEMA)
        table.write_parquet(tmp_path / "products_alerts.parquet")
        instance.report_runless_asset_event(dg.AssetMaterialization(alerts.key))
        with dg.build_sensor_context(instance, resources=stored(tmp_path)) as context:
            sensor(context)

    tick("a")
    with pytest.raises(KeyboardInterrupt):
        tick("a", "b")
    tick("a", "b", "c")
    tick("c")
    assert calls == [["a"], ["b"], ["b", "c"]]


@pytest.mark.parametrize(
    ("rule", "setting"),
    [(PriceDropped, "percent"), (PriceDropped, "max_percent"), (Undercut, "percent")],
)
def test_a_percentage_that_looks_like_a_share_is_a_warning(rule: Any, setting: str) -> None:
    text = rf"'\w+': {setting} is 0\.1 %"
    with pytest.warns(UserWarning, match=text):
        rule(**{setting: 0.1})


def test_rules_that_say_nothing_or_twice_the_same_are_refused(shop: Shop) -> None:
    with pytest.raises(ValueError, match="`percent` must be greater than 0; got -5"):
        PriceDropped(percent=-5)
    with pytest.raises(ValueError, match="`against` must be one of before, lowest, median"):
        PriceDropped(against="highest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="can contain only letters, digits and underscores"):
        Appeared(name="new ones")
    with pytest.raises(ValueError, match="The rule name 'fresh' is invalid"):
        Appeared(name="fresh")
    with pytest.raises(TypeError, match=r"`where` must be .* got str"):
        Appeared(where="brand = 'Acme'")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"'appeared': `again_after` .* timedelta.* got 7"):
        Appeared(again_after=7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`again_after` must be greater than 0; got 0:00:00"):
        Appeared(again_after=timedelta(0))
    with pytest.raises(ValueError, match="Two rules are named 'appeared'"):
        od.build_price_alerts_asset(shop.history, [Appeared(), Appeared(days=3)])
    with pytest.raises(ValueError, match=r"`rules` is empty.* PriceDropped\(percent=10\)"):
        od.build_price_alerts_asset(shop.history, [])
    with pytest.raises(ValueError, match=r"octogen_products .* build_product_history_asset"):
        od.build_price_alerts_asset(shop.products, [Appeared()])
    with pytest.raises(ValueError, match=r"octogen_products_history .* build_price_alerts_asset"):
        od.build_alert_sensor(shop.history, print)
