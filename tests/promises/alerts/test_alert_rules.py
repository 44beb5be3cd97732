"""Each alert rule is declared by its class alone: names, YAML, JSON schema and docs follow it."""

from __future__ import annotations

from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import octogen_dagster
from octogen_dagster import alerts
from octogen_dagster.alerts.rules import KINDS, AlertRule
from octogen_dagster.components import OctogenComponent

DOCS = Path(__file__).parents[3] / "docs"
RULES = pytest.mark.parametrize("rule", KINDS.values(), ids=[*KINDS])


def schema_of(kind: str) -> dict[str, Any]:
    """The JSON schema of the fields of a kind."""
    search = OctogenComponent.model().model_json_schema()["$defs"]["SearchSettings"]
    conditions = search["properties"]["alerts"]["else"]["items"]["allOf"]
    (found,) = (
        each["then"]
        for each in conditions
        if each.get("if", {}).get("properties") == {"kind": {"const": kind}}
    )
    return dict(found)


@RULES
def test_json_schema_has_each_field_of_a_rule_with_its_description(rule: type[AlertRule]) -> None:
    schema = schema_of(rule.kind)
    assert {*schema["properties"]} == {"kind", *(each.name for each in fields(rule))}
    assert all(each.get("description") for each in schema["properties"].values())
    assert schema["additionalProperties"] is False


@RULES
def test_documentation_lists_each_rule(rule: type[AlertRule]) -> None:
    assert f"* `{rule.__name__}`" in (DOCS / "alerts.md").read_text()


@pytest.mark.parametrize("name", dir(alerts))
def test_rules_and_notifiers_are_imported_from_alerts(name: str) -> None:
    assert getattr(alerts, name).__name__ == name
    with pytest.raises(AttributeError, match=f"from octogen_dagster.alerts import {name}"):
        getattr(octogen_dagster, name)


def test_a_name_that_no_room_has_is_refused() -> None:
    with pytest.raises(AttributeError, match="PriceDroped"):
        _ = alerts.PriceDroped  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("written", "hours"), [("7d", 168), ("7 days", 168), ("1 day", 24), ("36h", 36)]
)
def test_cool_down_in_yaml_is_a_time_with_its_unit(written: str, hours: int) -> None:
    rules = [{"kind": "undercut", "again_after": written}]
    search = {
        "name": "boots",
        "history": True,
        "position": {"price_list": "articles"},
        "alerts": rules,
    }
    component = OctogenComponent.from_attributes_dict(attributes={"searches": [search]})
    (rule,) = component.searches[0].alerts
    assert rule.again_after == timedelta(hours=hours)
