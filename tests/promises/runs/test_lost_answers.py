"""No budget is exceeded by requests that the service charged and whose answers never arrived."""

import json
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from click.testing import CliRunner

import octogen_dagster as od
from octogen_dagster.api.spending import Spending
from octogen_dagster.cli.main import main
from octogen_dagster.errors import OctogenBudgetError, OctogenConnectionError
from octogen_dagster.sandbox.server import Sandbox
from tests.api.certificates import make_certificate
from tests.api.clients import QUICK, Transport, open_client
from tests.api.servers import POLL_SECONDS, RawServer, Received, http
from tests.results import materialized, metadata, octogen_at

PRICES = {"/v1/products/search": Decimal("0.014"), "/v1/products/lookup": Decimal("0.002")}
WAYS = ("silent", "closed", "half a head", "half a body")


class LosingServer(RawServer):
    """Answers as a sandbox does, over connections that stay open, and loses some charged answers.

    Args:
        sandbox: The sandbox.
        way: Says how the charged answer of a number, counted from 0, is lost; None if it is not.
    """

    def __init__(self, sandbox: Sandbox, way: Callable[[int], str | None]) -> None:
        self._sandbox, self._way = sandbox, way
        self._client = httpx.Client(verify=False)
        self._charged: list[Decimal] = []
        self.lost = 0
        super().__init__(self._answer, keep_alive=True)
        self.api_key = sandbox.api_key

    @property
    def charged_usd(self) -> Decimal:
        return sum(self._charged, Decimal(0))

    def _answer(self, request: Received) -> Iterator[bytes]:
        answer = self._client.request(
            request.method,
            self._sandbox.base_url.removesuffix("/v1") + request.target,
            content=request.body,
            headers={
                "authorization": request.headers.get("authorization", ""),
                "content-type": "application/json",
            },
        )
        (text,) = http(answer.status_code, answer.text.encode(), connection="keep-alive")
        way = None
        if answer.is_success and request.target in PRICES:
            self._charged.append(PRICES[request.target])
            way = self._way(len(self._charged) - 1)
        if way is None:
            yield text
            return
        self.lost += 1
        if way == "silent":
            self.closing.wait(POLL_SECONDS)
        head = text.index(b"\r\n\r\n")
        yield text[: {"half a head": head // 2, "half a body": head + 20}.get(way, 0)]
        raise ConnectionError(way)


def always(way: str) -> Callable[[int], str | None]:
    return lambda _: way


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(catalogs={"kumo": 230}) as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("answered", [0, 1])
async def test_a_budget_stops_on_what_is_charged_and_what_might_be(
    sandbox: Sandbox, transport: Transport, way: str, answered: int
) -> None:
    spending = Spending(budget_usd=0.05)
    with LosingServer(sandbox, lambda number: way if number >= answered else None) as server:
        async with open_client(
            server, transport, retry=QUICK, spending=spending, timeout=1
        ) as client:
            for _ in range(answered):
                await client.search_products()
            with pytest.raises(OctogenBudgetError) as caught:
                await client.search_products()
            with pytest.raises(OctogenBudgetError):
                await client.search_products()
        assert server.charged_usd == Decimal("0.042")
    charged = 3 if way == "half a body" else answered
    assert spending.spent_usd == charged * Decimal("0.014")
    assert spending.possibly_charged_usd == (3 - charged) * Decimal("0.014")
    assert isinstance(caught.value.__cause__, OctogenConnectionError)
    lost = "possibly charged for lost responses"
    assert (lost in str(caught.value), "Raise the timeout" in str(caught.value)) == (
        (False, False) if charged == 3 else (True, True)
    )


@pytest.mark.parametrize("failure", ["name", "refused", "handshake", "tunnel"])
async def test_a_request_that_never_reached_the_service_is_free(
    failure: str, transport: Transport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nowhere:
        api_key = RawServer.api_key
        base_url = {
            "name": "https://octogen.invalid/v1",
            "refused": "http://127.0.0.1:1/v1",
            "tunnel": "https://octogen.invalid/v1",
        }.get(failure, "")

    certificate = make_certificate(tmp_path / "server.pem") if failure == "handshake" else None
    spending = Spending(budget_usd=0.014)
    with RawServer(lambda _: http(502), certificate=certificate) as server:
        if failure == "tunnel":
            monkeypatch.setenv("HTTPS_PROXY", server.origin)
        target: Any = server if failure == "handshake" else Nowhere()
        async with open_client(target, transport, retry=QUICK, spending=spending) as client:
            for _ in range(2):
                with pytest.raises(OctogenConnectionError):
                    await client.search_products()
    assert spending.spent_usd + spending.possibly_charged_usd == 0
    assert spending.requests == 8


def spent(run: dg.DagsterRun) -> dict[str, Decimal]:
    """The dollars in the tags of a run, by what they are."""
    names = ("spent_usd", "possibly_charged_usd")
    return {
        name: sum(
            (
                Decimal(value)
                for tag, value in run.tags.items()
                if tag.startswith(f"octogen/{name}.")
            ),
            Decimal(0),
        )
        for name in names
    }


@pytest.mark.parametrize("seed", range(6))
def test_a_run_counts_each_charged_page_and_lookup_and_exceeds_no_budget(
    sandbox: Sandbox, tmp_path: Path, seed: int, instance: dg.DagsterInstance
) -> None:
    chance = random.Random(seed)
    budget_usd = round(chance.uniform(0.05, 0.6), 3)
    share = chance.choice([0.05, 0.3])

    def way(_: int) -> str | None:
        return chance.choice(WAYS[1:]) if chance.random() < share else None

    search = od.ProductSearch(catalogs=["kumo"], page_size=20)
    products = od.build_products_asset("products", search, retry_policy=None)
    details = od.build_product_details_asset(products, name="details", retry_policy=None)
    with LosingServer(sandbox, way) as server:
        tags: dict[str, str] = {}
        for _ in range(3):  # a run and its retries
            octogen = octogen_at(server, budget_usd=budget_usd, attempts=2)
            result = materialized(
                [products, details],
                tmp_path,
                octogen,
                raise_on_error=False,
                instance=instance,
                tags=tags,
            )
            run = instance.get_run_by_id(result.run_id)
            assert run
            counted = spent(run)
            assert server.charged_usd <= sum(counted.values()) <= Decimal(str(budget_usd))
            if result.success:
                break
            tags = {**run.tags, "dagster/parent_run_id": run.run_id}
    assert server.lost
    costs = materialized([od.build_costs_asset()], tmp_path, instance=instance)
    shown = metadata(costs, "octogen_costs")
    assert shown["octogen/total_usd"] == float(counted["spent_usd"])
    assert shown["octogen/total_possibly_charged_usd"] == float(counted["possibly_charged_usd"])


def test_a_snapshot_says_what_might_be_charged_besides(sandbox: Sandbox, tmp_path: Path) -> None:
    products = od.build_products_asset("products", od.ProductSearch(catalogs=["kumo"]))
    ways = {1: "closed", 2: "silent"}
    with LosingServer(sandbox, ways.get) as server:
        octogen = octogen_at(server, timeout=2.0, concurrency=1)
        result = materialized([products], tmp_path, octogen)
        again = materialized([products], tmp_path, octogen_at(server))
    shown = metadata(result, "products")
    assert (shown["octogen/cost_usd"], shown["octogen/possibly_charged_usd"]) == (0.042, 0.028)
    assert shown["octogen/summary"].endswith("; $0.042 and possibly $0.028 more")
    assert "octogen/possibly_charged_usd" not in metadata(again, "products")


@pytest.mark.parametrize(
    ("way", "max_usd"), [(always("silent"), 0.03), ({2: "closed", 4: "half a body"}.get, 0.05)]
)
def test_the_doctor_spends_no_more_than_allowed(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[[int], str | None],
    max_usd: float,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("octogen_dagster.doctor.service.QUESTION_TIMEOUT", 2.0)
    with LosingServer(sandbox, way) as server:
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", server.api_key)
        monkeypatch.setenv("OCTOGEN_BASE_URL", server.base_url)
        arguments = ["--ask", "--yes", "--host", "kumo.example", "--json"]
        result = CliRunner().invoke(main, ["doctor", *arguments, "--max-usd", str(max_usd)])
        charged_usd = server.charged_usd
    report = json.loads(result.stdout)
    counted = Decimal(str(report["spent_usd"])) + Decimal(str(report["possibly_charged_usd"]))
    assert counted == charged_usd <= Decimal(str(max_usd))
    assert report["possibly_charged_usd"] > 0
    assert f"and possibly ${report['possibly_charged_usd']} more of" in result.stderr
    said = "".join(each["message"] for each in report["findings"])
    assert "for lost responses" in said
