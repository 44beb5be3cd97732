"""What follows the products is requested by itself, also if it is switched on after a backfill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

import octogen_dagster as od
from octogen_dagster.assets.definition import asset_arguments_of
from octogen_dagster.sandbox.server import Sandbox
from octogen_dagster.snapshots.asset_decorator import SnapshotRun, snapshot_asset
from tests.promises.sharing.linked import BIGQUERY, linked
from tests.promises.yaml.yaml_projects import load, run
from tests.results import materialized, of_range
from tests.servers.bigquery import BigQueryServer, serving

FOLLOWERS = ("octogen_products_changes", "octogen_products_brands", "octogen_products_history")


def of_each(partitions: set[str | None]) -> dict[str, set[str | None]]:
    return dict.fromkeys(FOLLOWERS, partitions)


class Automation:
    """Ticks of the automation of a deployment, which is switched on when it is made."""

    def __init__(self, defs: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._defs, self._instance, self._cursor = defs, instance, None

    def tick(self) -> dict[str, set[str | None]]:
        """The partitions that a tick requests of each asset."""
        tick: Any = dg.evaluate_automation_conditions(
            self._defs, self._instance, cursor=self._cursor
        )
        self._cursor = tick.cursor
        requested = {
            result.key.to_user_string(): set(tick.get_requested_partitions(result.key))
            for result in tick.results
            if isinstance(result.key, dg.AssetKey)
        }
        return {asset: partitions for asset, partitions in requested.items() if partitions}


@pytest.fixture
def attributes(tmp_path: Path, shops: Sandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The attributes of a component of whole catalogs, with what follows them."""
    for name, value in shops.environment.items():
        monkeypatch.setenv(name, value)
    search = {"name": "octogen_products", "partitions": "catalog"}
    return {
        "storage": {"base_dir": str(tmp_path)},
        "searches": [search | {"changes": True, "brands": True, "history": True}],
    }


@pytest.fixture
def deployment(
    attributes: dict[str, Any], instance: dg.DagsterInstance
) -> Iterator[dg.Definitions]:
    """The definitions, after a backfill of all products."""
    with load(attributes) as (_, defs):
        run(defs, instance, "octogen_catalogs")
        for catalog in ("northpeak", "strada"):
            run(defs, instance, "octogen_products", partition=catalog)
        yield defs


@pytest.mark.long
@pytest.mark.seed
def test_what_follows_begins_if_automation_is_switched_on_after_a_backfill(
    deployment: dg.Definitions, instance: dg.DagsterInstance, shops: Sandbox
) -> None:
    automation = Automation(deployment, instance)
    assert automation.tick() == of_each({"northpeak", "strada"})
    for catalog in ("northpeak", "strada"):
        run(deployment, instance, *FOLLOWERS, partition=catalog)
    assert automation.tick() == {}
    shops.next_day()
    run(deployment, instance, "octogen_products", partition="strada")
    assert automation.tick() == of_each({"strada"})


@pytest.mark.slow
@pytest.mark.seed
def test_a_missing_partition_is_requested_once_and_only_after_the_products_of_its_catalog(
    deployment: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions("octogen_catalogs", ["kiosk"])
    automation = Automation(deployment, instance)
    assert automation.tick() == of_each({"northpeak", "strada"})
    assert [automation.tick() for _ in range(3)] == [{}] * 3, "also if its run fails"
    event = dg.AssetMaterialization("octogen_products", partition="kiosk")
    instance.report_runless_asset_event(event)
    assert automation.tick() == of_each({"kiosk"})


def wanted(
    defs: dg.Definitions, instance: dg.DagsterInstance, octogen: od.OctogenResource
) -> list[str | None]:
    """The partitions that the sensor of catalogs requests."""
    products = defs.get_assets_def("octogen_products")
    context = dg.build_sensor_context(instance=instance, resources={"octogen": octogen})
    result = od.build_catalog_sensor(products)(context)
    assert isinstance(result, dg.SensorResult)
    return [request.partition_key for request in result.run_requests or ()]


def data_version(instance: dg.DagsterInstance, key: dg.AssetKey) -> str:
    """The data version of the last materialization."""
    (record,) = instance.fetch_materializations(key, limit=1).records
    assert record.asset_materialization
    return (record.asset_materialization.tags or {})["dagster/data_version"]


@pytest.mark.slow
@pytest.mark.seed
def test_a_catalog_that_was_indexed_again_without_a_change_is_read_once_and_wakes_nobody(
    deployment: dg.Definitions,
    instance: dg.DagsterInstance,
    shops: Sandbox,
    octogen: od.OctogenResource,
    tmp_path: Path,
) -> None:
    key = dg.AssetKey("octogen_products")
    automation = Automation(deployment, instance)
    automation.tick()
    run(deployment, instance, *FOLLOWERS, partition="strada")
    version = data_version(instance, key)

    shops.touch("strada")
    assert wanted(deployment, instance, octogen) == ["strada"]
    run(deployment, instance, "octogen_products", partition="strada")
    assert wanted(deployment, instance, octogen) == []
    assert automation.tick() == {}
    assert data_version(instance, key) == version
    (observed,) = instance.fetch_observations(key, limit=9).records
    observation = observed.event_log_entry.asset_observation
    assert observation
    assert str(observation.description).startswith("Nothing changed in ")

    rows = pl.read_parquet(tmp_path / "octogen_products" / "strada.parquet")
    shops.set_price(rows["product_url"][0], 1.0)
    shops.touch("strada")
    assert wanted(deployment, instance, octogen) == ["strada"]
    run(deployment, instance, "octogen_products", partition="strada")
    assert wanted(deployment, instance, octogen) == []
    assert data_version(instance, key) != version
    assert automation.tick() == of_each({"strada"})


@pytest.mark.slow
@pytest.mark.seed
def test_what_failed_is_made_after_the_next_read_although_that_changed_nothing(
    deployment: dg.Definitions, instance: dg.DagsterInstance, shops: Sandbox, tmp_path: Path
) -> None:
    automation = Automation(deployment, instance)
    automation.tick()
    run(deployment, instance, "octogen_products_brands", partition="strada")
    damaged = tmp_path / "octogen_products" / "strada.parquet"
    rows = damaged.read_bytes()
    damaged.write_bytes(rows[:-100])
    with pytest.raises(dg.Failure, match="is damaged"):
        run(deployment, instance, "octogen_products_history", partition="strada")
    damaged.write_bytes(rows)
    assert automation.tick() == {}
    shops.touch("strada")
    run(deployment, instance, "octogen_products", partition="strada")
    assert automation.tick() == {
        "octogen_products_history": {"strada"},
        "octogen_products_changes": {"strada"},
    }


@pytest.mark.parametrize("given", [{}, {"kinds": {"shop"}}, {"tags": {"team": "a"}}])
def test_an_unchanged_snapshot_triggers_nothing_whatever_kinds_and_tags_it_has(
    instance: dg.DagsterInstance, tmp_path: Path, given: dict[str, Any]
) -> None:
    prices = [1.0]

    def shop(run: SnapshotRun, partition: None) -> pl.DataFrame:
        return pl.DataFrame({"price": prices})

    @dg.asset(deps=["shop"], automation_condition=od.follow_upstream())
    def after() -> None: ...

    asset = snapshot_asset({}, asset_arguments_of(dg.AssetSpec("shop", **given), {}))(shop)
    automation = Automation(dg.Definitions([asset, after]), instance)

    def read() -> dict[str, set[str | None]]:
        materialized([asset], tmp_path, instance=instance)
        return automation.tick()

    automation.tick()
    assert read() == {"after": {None}}
    dg.materialize([after], instance=instance, run_config=QUIET)
    automation.tick()
    assert read() == {}
    prices.append(2.0)
    assert read() == {"after": {None}}


def test_an_unchanged_linked_snapshot_keeps_its_data_version_and_triggers_nothing(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    server = BigQueryServer()
    server.fields[:] = [
        {"name": "uuid", "type": "STRING"},
        {"name": "current_price", "type": "NUMERIC"},
        {"name": "exported_at", "type": "TIMESTAMP"},
    ]
    snapshots = od.build_linked_snapshot_asset(linked, max_age=None)
    history = od.build_history_asset(
        snapshots,
        key=["uuid"],
        tracked=["current_price"],
        automation_condition=od.follow_upstream(),
    )
    assets = [linked, snapshots, history]
    automation = Automation(dg.Definitions(assets, resources=BIGQUERY), instance)
    automation.tick()

    def export(day: int, price: str) -> tuple[str, set[str]]:
        exported_at = datetime(2026, 11, day, tzinfo=UTC).timestamp()
        server.rows = [("u", price, str(int(exported_at * 1e6)))]
        materialized(
            assets,
            tmp_path / "stored",
            selection=[linked, snapshots],
            resources=BIGQUERY,
            instance=instance,
        )
        return data_version(instance, snapshots.key), set(automation.tick())

    with serving(server, tmp_path):
        first, requested = export(1, "80")
        assert requested == {history.key.to_user_string()}
        materialized(
            assets,
            tmp_path / "stored",
            selection=[history],
            resources=BIGQUERY,
            instance=instance,
        )
        automation.tick()
        assert export(2, "80") == (first, set())
        version, requested = export(3, "70")
        assert version != first
        assert requested == {history.key.to_user_string()}


SHOPS = dg.StaticPartitionsDefinition(["acme", "zen"])
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
Runs = list[tuple[str, str | None]]


class Chain(Automation):
    """Products of shops with their history and alerts, and a page over all of both."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        follow = od.follow_upstream()
        self.meanwhile: Callable[[], object] | None = None

        @dg.asset(partitions_def=SHOPS)
        def products() -> None: ...

        @dg.asset(partitions_def=SHOPS, deps=[products], automation_condition=follow)
        def history() -> None:
            self._do_meanwhile()

        @dg.asset(partitions_def=SHOPS, deps=[history], automation_condition=follow)
        def alerts() -> None:
            self._do_meanwhile()

        @dg.asset(deps=[products, history], automation_condition=follow)
        def page() -> None:
            self._do_meanwhile()

        self._assets: Sequence[dg.AssetsDefinition] = [products, history, alerts, page]
        super().__init__(dg.Definitions(assets=self._assets), instance)
        for shop in SHOPS.get_partition_keys():
            self.make("products history alerts", shop)
        self.make("page")
        self.tick()
        assert self.answer() == []

    def _do_meanwhile(self) -> None:
        during, self.meanwhile = self.meanwhile, None
        if during:
            during()

    def make(self, names: str, shop: str | None = None) -> None:
        selection = dg.AssetSelection.assets(*names.split())
        made = dg.materialize(
            self._assets,
            selection=selection,
            partition_key=shop,
            instance=self._instance,
            run_config=QUIET,
        )
        assert made.success

    def answer(self) -> list[Runs]:
        """The runs that each of some ticks requests, which are made before the next."""
        answers: list[Runs] = []
        for _ in range(6):
            requested = self.tick()
            shops = requested.get("history", set()) | requested.get("alerts", set())
            runs: Runs = [
                (
                    " ".join(
                        name for name in ("history", "alerts") if shop in requested.get(name, ())
                    ),
                    shop,
                )
                for shop in sorted(map(str, shops))
            ]
            runs += [("page", None)] if "page" in requested else []
            answers.append(runs)
            for names, shop in runs:
                self.make(names, shop)
        while answers and not answers[-1]:
            answers.pop()
        return answers


@pytest.fixture
def chain(instance: dg.DagsterInstance) -> Chain:
    return Chain(instance)


ACME: Runs = [("history alerts", "acme")]
PAGE: Runs = [("page", None)]


@pytest.mark.slow
@pytest.mark.parametrize("partitions", [SHOPS, dg.DynamicPartitionsDefinition(name="shops")])
@pytest.mark.parametrize("in_one_run", [True, False])
def test_what_is_requested_together_at_the_first_tick_is_requested_once(
    instance: dg.DagsterInstance,
    partitions: dg.PartitionsDefinition[str],
    *,
    in_one_run: bool,
) -> None:
    if not isinstance(partitions, dg.StaticPartitionsDefinition):
        instance.add_dynamic_partitions("shops", ["acme", "zen"])
    several, follow = dg.BackfillPolicy.single_run(), od.follow_upstream()

    @dg.asset(partitions_def=partitions, backfill_policy=several)
    def products() -> None: ...

    @dg.asset(
        partitions_def=partitions,
        backfill_policy=several,
        deps=[products],
        automation_condition=follow,
    )
    def history() -> None: ...

    @dg.asset(
        partitions_def=partitions,
        backfill_policy=several,
        deps=[history],
        automation_condition=follow,
    )
    def alerts() -> None: ...

    assets = [products, history, alerts]
    automation = Automation(dg.Definitions(assets), instance)

    def make(*names: str, first: str = "acme", last: str = "zen") -> None:
        made = dg.materialize(
            assets,
            selection=names,
            instance=instance,
            run_config=QUIET,
            tags=of_range(first, last),
        )
        assert made.success

    shops: set[str | None] = {"acme", "zen"}
    make("products")
    for _ in range(2):
        assert automation.tick() == {"history": shops, "alerts": shops}
        if in_one_run:
            make("history", "alerts")
        else:
            for shop in ("acme", "zen"):
                make("history", "alerts", first=shop, last=shop)
        assert [automation.tick() for _ in range(3)] == [{}] * 3
        make("products")


@pytest.mark.slow
@pytest.mark.parametrize("history_first", [True, False])
def test_an_asset_over_all_catalogs_has_what_came_while_it_was_made(
    chain: Chain, *, history_first: bool
) -> None:
    chain.make("products", "acme")
    assert set(chain.tick()) == {"history", "alerts", "page"}
    for name in ("history", "page") if history_first else ("page", "history"):
        chain.make(*("history alerts", "acme") if name == "history" else (name,))
    assert chain.answer() == [
        PAGE
    ]  # made after a history that came first, it is made once too often


@pytest.mark.slow
@pytest.mark.parametrize("ticks", [0, 2])
def test_an_asset_over_all_catalogs_has_what_came_during_ticks_of_its_run(
    chain: Chain, ticks: int
) -> None:
    chain.make("products", "acme")
    chain.tick()

    def during() -> None:
        assert [chain.tick() for _ in range(ticks)] == [{}] * ticks
        chain.make("history alerts", "acme")
        assert [chain.tick() for _ in range(ticks)] == [{}] * ticks

    chain.meanwhile = during
    chain.make("page")
    assert chain.answer() == [PAGE]


@pytest.mark.slow
@pytest.mark.parametrize("ticks", [0, 2])
def test_the_second_of_two_snapshots_within_a_tick_is_followed(chain: Chain, ticks: int) -> None:
    chain.make("products", "acme")
    chain.tick()
    chain.make("page")

    def during() -> None:
        assert not any("history" in chain.tick() for _ in range(ticks))
        chain.make("products", "acme")
        assert not any("history" in chain.tick() for _ in range(ticks))

    chain.meanwhile = during
    chain.make("history alerts", "acme")
    histories = [run for runs in chain.answer() for run in runs if "history" in run[0]]
    assert [shop for _, shop in histories] == ["acme"]


@pytest.mark.slow
def test_what_is_requested_alone_while_its_follower_is_made_is_followed(chain: Chain) -> None:
    def during() -> None:
        chain.tick()
        chain.make("products", "acme")
        requested = chain.tick()
        assert requested["history"] == {"acme"}
        assert "alerts" not in requested  # they are under way
        chain.make("history", "acme")

    chain.make("history", "acme")
    assert chain.tick()["alerts"] == {"acme"}
    chain.meanwhile = during
    chain.make("alerts", "acme")
    assert ("alerts", "acme") in chain.answer()[0]


@pytest.mark.slow
def test_what_is_requested_together_is_requested_once(chain: Chain) -> None:
    for shop in SHOPS.get_partition_keys():
        chain.make("products", shop)
    both = [("history alerts", shop) for shop in SHOPS.get_partition_keys()]
    first, *later = chain.answer()
    assert first == both + PAGE
    assert later in ([], [PAGE])


@pytest.mark.slow
def test_what_is_made_together_by_hand_is_not_requested(chain: Chain) -> None:
    for shop in SHOPS.get_partition_keys():
        chain.make("products history alerts", shop)
    assert chain.answer() == [PAGE]


def test_what_follows_may_start_switched_on(attributes: dict[str, Any]) -> None:
    def automation_sensors(attributes: dict[str, Any]) -> dict[str, tuple[str, set[str]]]:
        """The status of each sensor of automation conditions, and the assets that it targets."""
        with load(attributes) as (_, defs):
            repository, graph = defs.get_repository_def(), defs.resolve_asset_graph()
            return {
                each.name: (
                    each.default_status.value,
                    {key.to_user_string() for key in each.asset_selection.resolve(graph)},
                )
                for each in repository.sensor_defs
                if isinstance(each, dg.AutomationConditionSensorDefinition)
            }

    assets = {"octogen_catalogs", "octogen_products", *FOLLOWERS}
    assert automation_sensors(attributes) == {
        "default_automation_condition_sensor": ("STOPPED", assets)
    }
    assert automation_sensors(attributes | {"automation": "running"}) == {
        "octogen_automation": ("RUNNING", assets)
    }
