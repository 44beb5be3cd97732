"""Budgets that end in the middle of a run, and what a larger one goes on from."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from octogen_dagster import (
    ProductSearch,
    build_product_details_asset,
    build_products_asset,
)
from octogen_dagster.sandbox.server import Sandbox
from tests.api.servers import RawServer, Received, http, page_of, unlisted
from tests.promises.runs.spending_runs import BASE_DIR, BUDGET_USD, make_job
from tests.results import failure, figures, is_retried, materialized, octogen_at, warnings

SPENT_TAG = "octogen/spent_usd"
STEP_TAG = f"{SPENT_TAG}.products"
PAGES = 40
SEARCH = ProductSearch(page_size=3)
PAGE_USD = 0.014


def run(
    shops: Sandbox | RawServer,
    folder: Path,
    assets: list[Any],
    budget_usd: float | None,
    **options: Any,
) -> dg.ExecuteInProcessResult:
    octogen = octogen_at(shops, attempts=1, budget_usd=budget_usd)
    return materialized(assets, folder, octogen, raise_on_error=False, **options)


def charged(sandbox: Sandbox, path: str = "/products/search") -> int:
    return sum(request.path == path and request.status == 200 for request in sandbox.requests)


@pytest.mark.parametrize("catalogs", [1, 4])
def test_a_run_with_a_larger_budget_goes_on_from_the_pages_of_one_that_was_spent(
    tmp_path: Path, catalogs: int
) -> None:
    products = build_products_asset("products", SEARCH)
    with Sandbox(catalogs=catalogs, products=PAGES * 3 // catalogs, generation="seed") as sandbox:
        stopped = run(sandbox, tmp_path, [products], budget_usd=25.5 * PAGE_USD)
        assert "would exceed the budget of $0.357 ($0.3" in failure(stopped)
        assert "Snapshots resume from their saved pages" in failure(stopped)
        assert charged(sandbox) == 25
        assert not (tmp_path / "products.parquet").exists()

        again = run(sandbox, tmp_path, [products], budget_usd=PAGES * PAGE_USD)
        assert again.success
        assert charged(sandbox) == PAGES, "no page was paid for twice"

    found = figures(again, "products")
    assert found["resumed_pages"] == 25
    assert found["cost_saved_usd"] == pytest.approx(25 * PAGE_USD)
    assert found["cost_usd"] == pytest.approx(15 * PAGE_USD)
    uuids = pl.read_parquet(tmp_path / "products.parquet")["uuid"]
    assert uuids.n_unique() == len(uuids) == PAGES * 3


def test_products_and_details_of_one_run_share_a_budget(shops: Sandbox, tmp_path: Path) -> None:
    products = build_products_asset("products", ProductSearch(catalogs=["strada"]))
    details = build_product_details_asset(products, name="details")
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(
            shops, tmp_path, [products, details], budget_usd=2 * PAGE_USD + 0.1, instance=instance
        )
        logged = warnings(instance, result)

    text = failure(result)
    assert "costs $0.002, which would exceed the budget of $0.128 ($0.1" in text
    assert "lookups are not saved" in text
    assert charged(shops) == 2
    assert charged(shops, "/products/lookup") == 50
    assert not (tmp_path / "details.parquet").exists()
    (warning,) = logged
    assert "$0.10 of the budget" in warning


@pytest.mark.long
def test_steps_that_are_processes_of_their_own_share_a_budget(
    shops: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {BASE_DIR: str(tmp_path / "snapshots"), BUDGET_USD: "0.228"}
    for name, value in {**shops.environment, **settings}.items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        result = dg.execute_job(dg.reconstructable(make_job), instance=instance)
        run = instance.get_run_by_id(result.run_id)

    failed = [event for event in result.all_events if event.is_failure]
    assert "would exceed the budget" in "".join(str(event.event_specific_data) for event in failed)
    pages, lookups = charged(shops), charged(shops, "/products/lookup")
    assert Decimal("0.014") * pages + Decimal("0.002") * lookups == Decimal("0.228")
    assert run
    spent = {step: Decimal(run.tags[f"{SPENT_TAG}.{step}"]) for step in ("products", "details")}
    assert spent == {"products": Decimal("0.014") * pages, "details": Decimal("0.002") * lookups}


def test_an_attempt_counts_what_the_ones_before_it_spent(shops: Sandbox, tmp_path: Path) -> None:
    products = build_products_asset("products", ProductSearch(catalogs=["northpeak"]))
    tags = {f"{SPENT_TAG}.products": "1", f"{SPENT_TAG}.details": "0.006"}
    result = run(shops, tmp_path, [products], budget_usd=1.02, tags=tags)
    assert "the budget of $1.02 ($1.02 spent)" in failure(result)
    assert charged(shops) == 1


@pytest.mark.slow
@pytest.mark.seed
def test_a_run_that_executes_one_that_succeeded_again_has_a_budget_of_its_own(
    instance: dg.DagsterInstance, shops: Sandbox, tmp_path: Path
) -> None:
    products = build_products_asset("products", ProductSearch(catalogs=["strada"]))

    def read(parent: str | None, budget_usd: float) -> dg.DagsterRun:
        tags = {}
        if parent:  # as Dagster does for a re-execution
            before = instance.get_run_by_id(parent)
            assert before
            tags = {**before.tags, "dagster/parent_run_id": parent}
        result = run(shops, tmp_path, [products], budget_usd, tags=tags, instance=instance)
        made = instance.get_run_by_id(result.run_id)
        assert made
        return made

    first = read(None, 2 * PAGE_USD)
    again = read(first.run_id, 2 * PAGE_USD)
    assert (first.is_success, again.is_success) == (True, True)
    failed = read(again.run_id, PAGE_USD)
    assert failed.is_failure
    assert charged(shops) == 5
    # A retry of the one that failed counts what that one has spent, and nothing before it.
    assert read(failed.run_id, PAGE_USD).is_failure
    assert charged(shops) == 5
    assert read(failed.run_id, 2 * PAGE_USD).is_success
    assert charged(shops) <= 7


@pytest.mark.parametrize("budget_usd", [1.0, None])
def test_a_step_changes_no_amount_of_another_that_ends_meanwhile(
    shops: Sandbox, tmp_path: Path, budget_usd: float | None
) -> None:
    products = build_products_asset("products", ProductSearch(catalogs=["strada"]))
    with dg.DagsterInstance.ephemeral() as instance:
        tags = {STEP_TAG: "0.5", f"{SPENT_TAG}.details": "0.25"}
        result = run(shops, tmp_path, [products], budget_usd, tags=tags, instance=instance)
        made = instance.get_run_by_id(result.run_id)
    assert made
    spent = {name: value for name, value in made.tags.items() if name.startswith(SPENT_TAG)}
    assert spent == {STEP_TAG: "0.528", f"{SPENT_TAG}.details": "0.25"}


def test_a_tag_that_is_no_amount_counts_as_nothing(
    shops: Sandbox, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    products = build_products_asset("products", ProductSearch(catalogs=["strada"]))
    for tag in ("", "much", "nan", "-5", "1e9"):
        result = run(shops, tmp_path, [products], 1.0, tags={STEP_TAG: tag}, instance=instance)
        assert result.success
        made = instance.get_run_by_id(result.run_id)
        assert made
        assert made.tags[STEP_TAG] == "0.028"


@pytest.mark.slow
def test_the_metadata_counts_each_charged_request(shops: Sandbox, tmp_path: Path) -> None:
    products = build_products_asset("products", ProductSearch(catalogs=["strada"], page_size=50))
    details = build_product_details_asset(products, name="details", only_changed=True)
    first = run(shops, tmp_path, [products, details], budget_usd=None)
    second = run(shops, tmp_path, [products, details], budget_usd=None)

    found = figures(first, "products")
    assert found["cost_usd"] == pytest.approx(3 * PAGE_USD)
    assert found["cost_usd_per_1000_products"] == pytest.approx(0.35)
    looked_up = figures(first, "details")
    assert looked_up["charged_requests"] == 120
    assert looked_up["cost_usd"] == pytest.approx(0.24)
    carried_over = figures(second, "details")
    assert carried_over["charged_requests"] == 0
    assert carried_over["cost_usd"] == 0
    assert carried_over["cost_saved_usd"] == pytest.approx(0.24)


def test_spent_credit_fails_without_retries_and_a_topped_up_run_goes_on(tmp_path: Path) -> None:
    credit = 3
    uuids = [f"p{number}" for number in range(5)]
    top_up = "https://octogen.example/top-up?organization=7"

    def respond(request: Received) -> list[bytes]:
        nonlocal credit
        if not credit:
            return http(402, {"detail": {"code": "insufficient_credit", "top_up_url": top_up}})
        credit -= 1
        return http(200, page_of(uuids, request.json))

    products = build_products_asset("products", ProductSearch(catalogs=["acme"], page_size=1))
    with unlisted(respond) as server:
        stopped = run(server, tmp_path, [products], budget_usd=None)
        (event,) = stopped.get_step_failure_events()
        found = event.step_failure_data.user_failure_data
        assert found
        assert found.metadata == {"octogen/top_up_url": dg.MetadataValue.url(top_up)}
        assert f"Top it up at {top_up} and rerun." in failure(stopped)
        assert not is_retried(stopped)

        credit = 5
        again = run(server, tmp_path, [products], budget_usd=None)
    assert again.success
    assert figures(again, "products")["resumed_pages"] == 3
    # The first and the last saved page are compared, since the service does not say when the
    # catalog was indexed.
    assert figures(again, "products")["cost_usd"] == pytest.approx(4 * PAGE_USD)
    assert figures(again, "products")["cost_saved_usd"] == pytest.approx(PAGE_USD)
    assert pl.read_parquet(tmp_path / "products.parquet")["uuid"].to_list() == uuids
