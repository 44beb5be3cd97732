from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from octogen_dagster.api.blocking import BlockingClient
from octogen_dagster.api.credentials import ApiKey
from octogen_dagster.api.service import Service
from octogen_dagster.api.spending import Prices, Spending, usd
from octogen_dagster.errors import OctogenBudgetError, OctogenError
from tests.api.clients import QUICK, Transport, open_client
from tests.api.servers import KEY, RawServer, Received, http, in_turn, page

SEARCH, LOOKUP = "/products/search", "/products/lookup"
URL = "https://shop.example/a"
FOUND = {"catalogKey": "acme", "catalogDisplayName": "Acme", "product": page(["a"])["items"][0]}


def charge(spending: Spending, path: str, *, times: int = 1) -> None:
    for _ in range(times):
        with spending.request(path, "Catalog 'acme'") as request:
            request.is_charged = True


def answer(request: Received) -> list[bytes]:
    """Answer each operation with the least that the service sends."""
    bodies: dict[str, Any] = {
        "/v1/catalogs": [],
        f"/v1{SEARCH}": page(["a"]),
        f"/v1{LOOKUP}": FOUND,
    }
    return http(200, bodies[request.target])


class TestPrices:
    def test_the_published_prices_are_the_default(self) -> None:
        prices = Prices()
        assert prices.of(SEARCH) == Decimal("0.014")
        assert prices.of(LOOKUP) == Decimal("0.002")

    @pytest.mark.parametrize("name", ["search_page_usd", "lookup_usd"])
    @pytest.mark.parametrize("price", [-0.01, float("nan"), float("inf")])
    def test_a_price_that_cannot_be_is_refused(self, name: str, price: float) -> None:
        with pytest.raises(ValueError, match=f"{name} must be at least 0 dollars, not {price}"):
            Prices(**{name: price})


class TestCounting:
    def test_a_thousand_pages_cost_exactly_14_dollars(self) -> None:
        spending = Spending()
        charge(spending, SEARCH, times=1000)
        assert spending.spent_usd == 14
        assert spending.charged_requests == 1000

    def test_a_request_that_was_not_charged_costs_nothing(self) -> None:
        spending = Spending()
        with spending.request(SEARCH, "Catalog 'acme'"):
            pass
        assert (spending.charged_requests, spending.spent_usd) == (0, Decimal(0))

    def test_a_part_counts_in_the_whole_and_the_whole_not_in_the_part(self) -> None:
        whole = Spending()
        first, second = whole.part(), whole.part()
        charge(first, SEARCH, times=2)
        charge(second, LOOKUP)
        charge(whole, LOOKUP)
        assert (first.charged_requests, first.spent_usd) == (2, Decimal("0.028"))
        assert (second.charged_requests, second.spent_usd) == (1, Decimal("0.002"))
        assert (whole.charged_requests, whole.spent_usd) == (4, Decimal("0.032"))

    @pytest.mark.parametrize("pickled", [lambda whole: whole, Spending.part])
    def test_a_pickled_one_goes_on_from_what_is_spent(
        self, pickled: Callable[[Spending], Spending]
    ) -> None:
        spending = Spending(Prices(search_page_usd=1), budget_usd=2)
        charge(spending, SEARCH)
        copy = pickle.loads(pickle.dumps(pickled(spending)))
        charge(copy, SEARCH)
        with pytest.raises(OctogenBudgetError):
            charge(copy, SEARCH)

    def test_what_other_processes_spent_never_lowers_it(self) -> None:
        spending = Spending()
        spending.raise_to(Decimal("1.5"))
        spending.raise_to(Decimal(1))
        assert spending.spent_usd == Decimal("1.5")


class TestClients:
    async def test_each_search_and_each_lookup_is_charged(self, transport: Transport) -> None:
        spending = Spending()
        with RawServer(answer) as server:
            async with open_client(server, transport, spending=spending) as client:
                await client.list_catalogs()
                await client.search_products()
                await client.lookup_product(URL)
        assert (spending.requests, spending.charged_requests) == (3, 2)
        assert spending.spent_usd == Decimal("0.016")

    @pytest.mark.parametrize("status", [302, 401, 402, 404, 422, 429, 500, 503])
    async def test_another_status_is_free(self, transport: Transport, status: int) -> None:
        spending = Spending()
        with RawServer(lambda _: http(status)) as server:
            async with open_client(server, transport, spending=spending) as client:
                with pytest.raises(OctogenError, match=str(status)):
                    await client.search_products()
        assert (spending.charged_requests, spending.spent_usd) == (0, Decimal(0))

    async def test_a_body_that_is_cut_off_is_charged_and_so_is_its_repetition(
        self, transport: Transport
    ) -> None:
        spending = Spending()
        cut = http(200, page(["a"]), length=1_000_000)
        with RawServer(in_turn(cut, http(503), [], http(200, page(["a"])))) as server:
            async with open_client(server, transport, retry=QUICK, spending=spending) as client:
                assert (await client.search_products()).uuids == ["a"]
                assert client.statistics.requests == 4
        assert spending.charged_requests == 2
        assert spending.spent_usd == Decimal("0.028")

    async def test_the_rate_limit_of_the_latest_response_is_known(
        self, transport: Transport
    ) -> None:
        spending = Spending()
        limits = ["100", "3000", "many", "0"]
        responses = [http(200, [], x_ratelimit_limit=limit) for limit in limits]
        with RawServer(in_turn(*responses)) as server:
            async with open_client(server, transport, spending=spending.part()) as client:
                assert spending.requests_per_minute is None
                seen = []
                for _ in limits:
                    await client.list_catalogs()
                    seen.append(spending.part().requests_per_minute)
        assert seen == [100, 3000, 3000, 3000]

    def test_all_clients_of_a_service_count_together(self) -> None:
        with RawServer(answer) as server:
            service = Service(api_key=ApiKey(KEY), base_url=server.base_url)
            with BlockingClient(service) as client:
                client.lookup_product(URL)
            part = replace(service, timeout=7).for_execution(print)
            with BlockingClient(part) as client:
                client.search_products()
        assert service.spending.spent_usd == Decimal("0.016")
        assert part.spending.spent_usd == Decimal("0.014")


class TestBudget:
    async def test_the_request_that_would_exceed_it_is_not_sent(self, transport: Transport) -> None:
        spending = Spending(budget_usd=0.03)
        with RawServer(answer) as server:
            async with open_client(server, transport, retry=QUICK, spending=spending) as client:
                for _ in range(2):
                    await client.search_products(catalog="acme")
                with pytest.raises(OctogenBudgetError) as caught:
                    await client.search_products(catalog="acme")
                assert client.statistics.requests == len(server.received) == 2
                await client.lookup_product(URL)
                with pytest.raises(OctogenBudgetError) as no_lookup:
                    await client.lookup_product(URL)
                await client.list_catalogs()
        assert str(caught.value) == (
            "Catalog 'acme': the next request costs $0.014, which the budget of $0.03 does not "
            "allow: $0.028 are spent. It was not sent. Run it again with a larger budget_usd: a "
            "snapshot goes on from its saved pages, any other read begins anew."
        )
        assert str(no_lookup.value) == (
            f"The product at {URL}: the next request costs $0.002, which the budget of $0.03 does "
            "not allow: $0.03 are spent. It was not sent. Lookups are not kept: run it again with "
            "a larger budget_usd."
        )

    async def test_it_may_be_spent_to_the_last_cent(self) -> None:
        spending = Spending(Prices(search_page_usd=0.1), budget_usd=0.3)
        charge(spending, SEARCH, times=3)  # 0.1 + 0.1 + 0.1 > 0.3 with binary fractions
        with pytest.raises(OctogenBudgetError):
            charge(spending, SEARCH)

    def test_free_requests_are_sent_when_more_than_the_budget_is_spent(self) -> None:
        spending = Spending(budget_usd=1)
        spending.raise_to(Decimal("1.5"))  # an earlier attempt had a larger budget
        charge(spending, "/catalogs")
        with pytest.raises(OctogenBudgetError, match=r"budget of \$1\.00 .*: \$1\.50 are spent"):
            charge(spending, SEARCH)

    async def test_a_retry_that_would_exceed_it_is_not_sent(self, transport: Transport) -> None:
        cut = http(200, page(["a"]), length=1_000_000)
        with RawServer(lambda _: cut) as server:
            spending = Spending(budget_usd=0.03)
            async with open_client(server, transport, retry=QUICK, spending=spending) as client:
                with pytest.raises(OctogenBudgetError):
                    await client.search_products()
            assert len(server.received) == 2

    def test_requests_under_way_count_until_they_end(self) -> None:
        spending = Spending(budget_usd=0.03)
        refused = pytest.raises(
            OctogenBudgetError, match=r"\$0\.00 are spent and \$0\.028 are under way\. It was"
        )
        with spending.request(SEARCH, "A"), spending.part().request(SEARCH, "B"), refused:
            charge(spending, SEARCH)
        charge(spending.part(), SEARCH)

    def test_threads_together_do_not_exceed_it(self) -> None:
        spending = Spending(Prices(search_page_usd=1), budget_usd=10)
        together = threading.Barrier(8)

        def spend() -> None:
            together.wait(30)
            with pytest.raises(OctogenBudgetError):
                charge(spending.part(), SEARCH, times=100)

        with ThreadPoolExecutor(8) as threads:
            for each in [threads.submit(spend) for _ in range(8)]:
                each.result()
        assert spending.charged_requests == 10
        assert spending.spent_usd == 10

    @pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf")])
    def test_a_budget_that_cannot_be_is_refused(self, budget: float) -> None:
        with pytest.raises(ValueError, match=f"budget_usd must be above 0 dollars, not {budget}"):
            Spending(budget_usd=budget)

    def test_a_budget_needs_a_price(self) -> None:
        with pytest.raises(ValueError, match="budget_usd limits nothing while search_page_usd and"):
            Spending(Prices(0, 0), budget_usd=1)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "$0.00"), (0.014, "$0.014"), (1.4, "$1.40"), (2000, "$2,000.00"), (0.0005, "$0.0005")],
)
def test_dollars_are_written_as_in_the_price_list(amount: float, text: str) -> None:
    assert usd(Decimal(str(amount))) == usd(amount) == text
