"""examples/own_rule: an alert rule outside of the package, in Python and in YAML."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import on_sale
import pytest

from octogen_dagster.components import OctogenComponent
from octogen_dagster.errors import OctogenComponentError
from tests.docs.blocks import BLOCKS, ROOT
from tests.histories import day, product
from tests.promises.alerts.test_alerts import ALERTS, Shop


@pytest.mark.slow
def test_rule_fires_once_until_the_sale_ends(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    shop = Shop(tmp_path, instance, [on_sale.OnSale(percent=40)])
    prices = [(100.0, 100.0), (60.0, 100.0), (50.0, 100.0), (None, None), (55.0, 100.0)]
    for number, (price, list_price) in enumerate([*prices, (100.0, 100.0), (59.0, 100.0)], 1):
        shop.store(day(number), product("dress", price, original_price=list_price))
    assert shop.events() == [
        ("on_sale", "dress", day(2), 100.0, 60.0),
        ("on_sale", "dress", day(7), 100.0, 59.0),
    ]
    assert shop.read(ALERTS)["change_percent"].to_list() == [-40.0, -41.0]


def test_alerts_of_the_example_have_a_check_for_the_rule() -> None:
    assert on_sale.alerts.key.path[-1] == ALERTS
    assert "on_sale" in (on_sale.alerts.specs_by_key[on_sale.alerts.key].description or "")


def component(**rule: Any) -> OctogenComponent:
    rules = [{"kind": "on_sale.OnSale", **rule}]
    attributes = {"searches": [{"name": "boots", "history": True, "alerts": rules}]}
    return OctogenComponent.from_attributes_dict(attributes=attributes)


def test_yaml_names_the_rule_by_its_dotted_path() -> None:
    (rule,) = component(percent=40, again_after="7d").searches[0].alerts
    assert isinstance(rule, on_sale.OnSale)
    assert (rule.name, rule.percent, rule.again_after) == ("on_sale", 40, timedelta(days=7))


def test_a_mistake_in_its_fields_names_the_nearest_one() -> None:
    with pytest.raises(OctogenComponentError, match=r"alerts\[0\]\.percnt: .*'percent'"):
        component(percnt=40)


def test_the_page_shows_the_rule() -> None:
    (block,) = [each for each in BLOCKS if each.title == "on_sale.py"]
    _, _, shown = block.source.partition("@dataclass")
    assert shown in (ROOT / "examples/own_rule/on_sale.py").read_text()
