from __future__ import annotations

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from octogen_dagster.api.spending import Prices, Spending
from octogen_dagster.errors import OctogenBudgetError
from octogen_dagster.printable import usd

SEARCH, LOOKUP = "/products/search", "/products/lookup"


def charge(spending: Spending, path: str, *, times: int = 1) -> None:
    for _ in range(times):
        with spending.request(path, "Catalog 'acme'") as request:
            request.is_charged = True


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
