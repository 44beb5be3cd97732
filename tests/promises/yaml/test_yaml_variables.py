"""A variable that is not set is refused wherever YAML names it, and never becomes the text None."""

from __future__ import annotations

import re
from typing import Any

import dagster as dg
import pytest

from octogen_dagster.components import OctogenComponent
from tests.promises.yaml.yaml_projects import LINKED, TYPE, load

SEARCH: dict[str, Any] = {"name": "boots"}
NOT_SET = "the environment variable UNSET_ONE is not set"
BASES: dict[str, dict[str, Any]] = {
    TYPE: {"searches": [SEARCH]},
    LINKED: {"project": "p", "principal": "user:me@example.com"},
}
"""The attributes that each component needs."""
FIELDS = {
    TYPE: {
        "name": "shops_{}",
        "catalog_source.hosts[0]": "{}.com",
        "catalog_source.keys[1]": "b{}",
        "connection.base_url": "https://{}/v1",
        "connection.host": "{}.ai",
        "storage.base_dir": "s3://{}/x",
        "storage.storage_options.aws_endpoint": "https://{}",
        "searches[0].name": "boots_{}",
        "searches[0].search.q": "{} linen",
        "searches[0].search.facets[0].values[0]": "{} x",
        "searches[0].schedule.cron_schedule": "0 {} * * *",
        "searches[0].checks.exclude[0]": "{}s",
        "searches[0].changes.name": "new_{}",
        "translation.group_name": "shops_{}",
        "searches[0].translation.tags.season": "x{}",
    },
    LINKED: {
        "project": "{}-project",
        "principal": "serviceAccount:reader@{}.iam.gserviceaccount.com",
        "host": "{}.ai",
        "source.listings[0]": "projects/{}/locations/us/dataExchanges/e/listings/l",
        "snapshot.where": "brand = '{}'",
        "products.translation.group_name": "x{}",
    },
}
"""For each component, the paths of fields and a text with a place for a template."""


def written(path: str, text: str) -> dict[str, Any]:
    """Attributes that have a text at a path; an entry of a list has a name."""
    value: Any = text
    for name, place in reversed(re.findall(r"(\w+)(?:\[(\d)\])?", path)):
        if place:
            entry = {"name": "brand_name", **value} if isinstance(value, dict) else value
            value = [*["a"] * int(place), entry]
        value = {name: value}
    return dict(value)


def told(path: str, template: str) -> str:
    (type_,) = [each for each, fields in FIELDS.items() if path in fields]
    attributes = BASES[type_] | written(path, FIELDS[type_][path].replace("{}", template))
    with pytest.raises(Exception, match="Error while") as caught, load(attributes, type_) as (_, d):
        list(d.resolve_all_asset_specs())
    causes: list[str] = []
    error: BaseException | None = caught.value
    while error is not None:
        causes.append(str(error))
        error = error.__cause__
    (line,) = [line for line in causes[-1].splitlines() if "UNSET_ONE" in line]
    assert "defs.yaml:" in line
    return line.partition(" - ")[2]


@pytest.mark.parametrize("path", [*FIELDS[TYPE], *FIELDS[LINKED]])
def test_inside_a_text(path: str) -> None:
    assert told(path, "{{ env.UNSET_ONE }}").startswith(f"attributes.{path}: {NOT_SET}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ env.UNSET_ONE | default('x') }}",
        "{{ env.UNSET_ONE | lower }}",
        "{{ env.UNSET_ONE ~ 'x' }}",
        "{{ env.UNSET_ONE.lower() }}",
        "{{ 'x' + env.UNSET_ONE }}",
        "{{ env('UNSET_ONE') }}",
        "{% if true %}{{ env.UNSET_ONE }}{% endif %}",
    ],
)
@pytest.mark.parametrize("path", ["searches[0].search.q", "snapshot.where"])
def test_in_any_form_of_a_template(path: str, template: str) -> None:
    assert NOT_SET in told(path, template)


@pytest.mark.parametrize(
    "template",
    [
        "{{ env.UNSET_ONE or 'red' }}",
        "{{ env.UNSET_ONE | default('red', true) }}",
        "{{ env('UNSET_ONE', 'red') }}",
        "{{ env.UNSET_ONE if env.UNSET_ONE else 'red' }}",
        "{{ 'blue' if env.UNSET_ONE else 'red' }}",
        "{% if env.UNSET_ONE %}blue{% else %}red{% endif %}",
        "{{ env.SET_ONE }}",
        "{{ env.SET_ONE | lower }}",
    ],
)
def test_a_template_that_has_a_value_works(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET_ONE", "red")
    with load({"searches": [SEARCH | {"search": {"q": f"{template} linen"}}]}) as (_, defs):
        (spec,) = defs.resolve_all_asset_specs()
    assert spec.metadata["octogen/search"].value["q"] == "red linen"


def test_a_whole_text_of_a_resource_is_read_where_a_step_runs() -> None:
    storage = {"base_dir": "{{ env.UNSET_ONE }}"}
    with load({"storage": storage}) as (_, defs):
        resources: dict[str, Any] = dict(defs.resources or {})
    assert resources["octogen_io_manager"].base_dir == dg.EnvVar("UNSET_ONE")


def test_without_a_file_it_is_told_by_its_field() -> None:
    with pytest.raises(Exception, match=r"attributes.name: the environment variable UNSET_ONE"):
        OctogenComponent.from_attributes_dict(attributes={"name": "x_{{ env.UNSET_ONE }}"})


BRANCHES: dict[str, Any] = {
    "connection": {"budget_usd": "{{ 1 if env.IS_BRANCH else 50 }}"},
    "storage": {"base_dir": "gs://my-bucket/{{ env.BRANCH or 'prod' }}"},
    "searches": [
        SEARCH | {"partitions": "catalog", "sensor": "{{ false if env.IS_BRANCH else 'running' }}"}
    ],
}


@pytest.mark.parametrize(
    ("variables", "budget", "folder", "sensors"),
    [
        ({}, 50, "gs://my-bucket/prod", ["RUNNING"]),
        ({"IS_BRANCH": "1", "BRANCH": "a/b"}, 1, "gs://my-bucket/a/b", []),
    ],
)
def test_a_branch_deployment_spends_less_and_starts_nothing(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    budget: float,
    folder: str,
    sensors: list[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with load(BRANCHES) as (_, defs):
        resources: dict[str, Any] = dict(defs.resources or {})
        assert [each.default_status.value for each in defs.sensors or ()] == sensors
    assert resources["octogen"].budget_usd == budget
    assert resources["octogen_io_manager"].base_dir == folder
