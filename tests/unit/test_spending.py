from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from octogen_dagster.api.spending import Prices, Spending
from octogen_dagster.errors import OctogenBudgetError
from octogen_dagster.printable import usd
from tests.api.clients import QUICK, Transport, open_client
from tests.api.servers import RawServer, Received, http, page

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


class TestCounting:
    def test_a_thousand_pages_cost_exactly_14_dollars(self) -> None:
        spending = Spending()
        charge(spending, SEARCH, times=1000)
        assert spending.spent_usd == 14
        assert spending.charged_requests == 1000

    def test_a_part_counts_in_the_whole_and_the_whole_not_in_the_part(self) -> None:
        whole = Spending()
        first, second = whole.part(), whole.part()
        charge(first, SEARCH, times=2)
        charge(second, LOOKUP)
        charge(whole, LOOKUP)
        assert (first.charged_requests, first.spent_usd) == (2, Decimal("0.028"))
        assert (second.charged_requests, second.spent_usd) == (1, Decimal("0.002"))
        assert (whole.charged_requests, whole.spent_usd) == (4, Decimal("0.032"))


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
                await client.list_catalog_states()
        assert str(caught.value).startswith(
            "Catalog 'acme': the next request costs $0.014, which would exceed the budget of $0.03 "
            "($0.028 spent)."
        )
        assert "saved pages" in str(caught.value)
        assert str(no_lookup.value).startswith(
            f"The product at {URL}: the next request costs $0.002, which would exceed the budget "
            "of $0.03 ($0.03 spent)."
        )
        assert "Lookups are not saved" in str(no_lookup.value)
        for error in (caught, no_lookup):
            assert "was not sent" in str(error.value)
            assert "larger budget_usd" in str(error.value)

    async def test_it_may_be_spent_to_the_last_cent(self) -> None:
        spending = Spending(Prices(search_page_usd=0.1), budget_usd=0.3)
        charge(spending, SEARCH, times=3)  # 0.1 + 0.1 + 0.1 > 0.3 with binary fractions
        with pytest.raises(OctogenBudgetError):
            charge(spending, SEARCH)

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

    def test_a_budget_needs_a_price(self) -> None:
        with pytest.raises(ValueError, match=r"^budget_usd has no effect while"):
            Spending(Prices(0, 0), budget_usd=1)

    def test_a_pickle_and_a_part_have_what_is_left_of_it(self) -> None:
        spending = Spending(Prices(search_page_usd=1), budget_usd=5)
        charge(spending, SEARCH)
        assert pickle.loads(pickle.dumps(spending)).left_usd == spending.part().left_usd == 4


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "$0.00"), (0.014, "$0.014"), (1.4, "$1.40"), (2000, "$2,000.00"), (0.0005, "$0.0005")],
)
def test_dollars_are_written_as_in_the_price_list(amount: float, text: str) -> None:
    assert usd(Decimal(str(amount))) == usd(amount) == text
