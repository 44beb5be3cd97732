"""A variable that is not set is refused wherever YAML names it, and never becomes the text None."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from octogen_dagster.components import OctogenComponent
from tests.promises.yaml.yaml_projects import LINKED, TYPE, load

SEARCH: dict[str, Any] = {"name": "boots"}
PRINCIPAL = "serviceAccount:reader@{}.iam.gserviceaccount.com"
LISTING = "projects/{}/locations/us/dataExchanges/e/listings/l"
NOT_SET = "the environment variable UNSET_ONE is not set"


def of(path: str, template: str) -> tuple[str, dict[str, Any]]:
    """A component's type and attributes that have a text with a template at a path."""
    linked: dict[str, Any] = {"project": "p", "principal": "user:me@example.com"}
    fields: dict[str, tuple[str, dict[str, Any]]] = {
        "name": (TYPE, {"name": f"shops_{template}"}),
        "catalog_source.hosts[0]": (TYPE, {"catalog_source": {"hosts": [f"{template}.com"]}}),
        "catalog_source.keys[1]": (TYPE, {"catalog_source": {"keys": ["a", f"b{template}"]}}),
        "connection.base_url": (TYPE, {"connection": {"base_url": f"https://{template}/v1"}}),
        "connection.host": (TYPE, {"connection": {"host": f"{template}.ai"}}),
        "storage.base_dir": (TYPE, {"storage": {"base_dir": f"s3://{template}/x"}}),
        "storage.storage_options.aws_endpoint": (
            TYPE,
            {"storage": {"storage_options": {"aws_endpoint": f"https://{template}"}}},
        ),
        "searches[0].name": (TYPE, {"searches": [{"name": f"boots_{template}"}]}),
        "searches[0].search.q": (
            TYPE,
            {"searches": [SEARCH | {"search": {"q": f"{template} linen"}}]},
        ),
        "searches[0].search.facets[0].values[0]": (
            TYPE,
            {"searches": [SEARCH | {"search": {"facets": [facet(f"{template} x")]}}]},
        ),
        "searches[0].schedule.cron_schedule": (
            TYPE,
            {"searches": [SEARCH | {"schedule": {"cron_schedule": f"0 {template} * * *"}}]},
        ),
        "searches[0].checks.exclude[0]": (
            TYPE,
            {"searches": [SEARCH | {"checks": {"exclude": [f"{template}s"]}}]},
        ),
        "searches[0].changes.name": (
            TYPE,
            {"searches": [SEARCH | {"changes": {"name": f"new_{template}"}}]},
        ),
        "translation.group_name": (
            TYPE,
            {"searches": [SEARCH], "translation": {"group_name": f"shops_{template}"}},
        ),
        "searches[0].translation.tags.season": (
            TYPE,
            {"searches": [SEARCH | {"translation": {"tags": {"season": f"x{template}"}}}]},
        ),
        "project": (LINKED, linked | {"project": f"{template}-project"}),
        "principal": (LINKED, linked | {"principal": PRINCIPAL.format(template)}),
        "host": (LINKED, linked | {"host": f"{template}.ai"}),
        "source.listings[0]": (
            LINKED,
            {"project": "p", "source": {"listings": [LISTING.format(template)]}},
        ),
        "snapshot.where": (LINKED, linked | {"snapshot": {"where": f"brand = '{template}'"}}),
        "products.translation.group_name": (
            LINKED,
            linked | {"products": {"translation": {"group_name": f"x{template}"}}},
        ),
    }
    return fields[path]


def facet(value: str) -> dict[str, Any]:
    return {"name": "brand_name", "values": [value]}


FIELDS = [
    "name",
    "catalog_source.hosts[0]",
    "catalog_source.keys[1]",
    "connection.base_url",
    "connection.host",
    "storage.base_dir",
    "storage.storage_options.aws_endpoint",
    "searches[0].name",
    "searches[0].search.q",
    "searches[0].search.facets[0].values[0]",
    "searches[0].schedule.cron_schedule",
    "searches[0].checks.exclude[0]",
    "searches[0].changes.name",
    "translation.group_name",
    "searches[0].translation.tags.season",
    "project",
    "principal",
    "host",
    "source.listings[0]",
    "snapshot.where",
    "products.translation.group_name",
]


def told(path: str, template: str) -> str:
    type_, attributes = of(path, template)
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


@pytest.mark.parametrize("path", FIELDS)
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
