"""Mistakes in the YAML of OctogenComponent are told with line, field and the valid choices."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator

import pytest
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from octogen_dagster.components.component import OctogenComponent
from octogen_dagster.errors import OctogenComponentError
from tests.components.projects import TYPE

SECRET = "octo_live_00000000000000000000000000000000_secret"


@pytest.fixture(scope="module")
def project() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as project:
        project.scaffold_component(OctogenComponent, "octogen")
        yield project


@pytest.fixture
def mistakes(project: DefsFolderSandbox) -> Callable[[str], list[str]]:
    """The lines of the error for some attributes, which begin in line 3 of the file."""

    def mistakes(attributes: str) -> list[str]:
        path = project.defs_folder_path / "octogen" / "defs.yaml"
        path.write_text(f"type: {TYPE}\nattributes:\n{attributes}")
        with (
            pytest.raises(Exception, match="Error while loading component") as caught,
            project.load_component_and_build_defs(path.parent),
        ):
            pass
        error = caught.value.__cause__
        assert isinstance(error, OctogenComponentError)
        assert SECRET not in str(error)
        first, *lines = str(error).splitlines()
        assert first == "OctogenComponent cannot be loaded. Correct its YAML:"
        return [line.removeprefix(f"{path}:").replace(" - attributes.", ": ") for line in lines]

    return mistakes


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param(
            f"  connection:\n    api_key: {SECRET}\n    budget: 3\n",
            "5: connection.budget: no such field. Did you mean 'budget_usd'? The fields are ",
            id="unknown field",
        ),
        pytest.param(
            f"  connection:\n    api_key: {SECRET}\n",
            "4: connection.api_key: api_key is written out, and Dagster would show it in its UI",
            id="key that is written out",
        ),
        pytest.param(
            '  connection:\n    api_key: "{{ env.KEY }}"\n    budget_usd: -3\n',
            "5: connection.budget_usd: Input should be greater than 0",
            id="number out of range",
        ),
        pytest.param(
            "  connection:\n    base_url: http://octogen.example\n",
            "4: connection.base_url: base_url 'http://octogen.example' would send the API key",
            id="address without encryption",
        ),
        pytest.param(
            "  connection: octogen\n",
            "3: connection: must be a mapping",
            id="text for a mapping",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      checks: {blocking: sometimes}\n",
            "5: searches[0].checks.blocking: must be true or false",
            id="wrong type",
        ),
        pytest.param(
            '  storage:\n    base_dir: "{{ 2 + 3 }}"\n',
            "4: storage.base_dir: must be text",
            id="template of the wrong type",
        ),
        pytest.param(
            "  catalog_source:\n    host: [acme.com]\n",
            "4: catalog_source.host: no such field. Did you mean 'hosts'? The fields are catalogs, "
            "hosts",
            id="unknown source",
        ),
        pytest.param(
            "  catalog_source:\n    hosts: [acme.com]\n    keys: [acme]\n",
            "3: catalog_source: catalog_source has both hosts and keys: write one of them.",
            id="hosts and keys",
        ),
        pytest.param(
            "  catalog_source: acme.com\n",
            "3: catalog_source: catalog_source is 'acme.com': write granted, or hosts: [...]",
            id="text for a source",
        ),
        pytest.param(
            "  searches:\n    - search: {q: boots}\n",
            "4: searches[0].name: is required",
            id="search without a name",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n    - name: hats\n    - name: boots\n",
            "6: searches[2].name: 'boots' is also the name of searches[0]: give each search a name",
            id="two searches of one name",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      partitions: catalogs\n",
            "5: searches[0].partitions: 'catalogs' is not a choice. Did you mean 'catalog'? "
            "Choose 'none', 'catalog', 'day' or 'catalog_day'",
            id="unknown partitions",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      q: boots\n",
            "5: searches[0].q: no such field. It is a field of 'search'",
            id="keywords beside the search",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      search:\n        facet: []\n",
            "6: searches[0].search.facet: no such field. Did you mean 'facets'?",
            id="unknown field of a search",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      search:\n        page_size: 300\n",
            "6: searches[0].search.page_size: Input should be less than or equal to 100",
            id="page size",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      search:\n        facets:\n"
            "          - name: gender\n            values: [femal]\n",
            "7: searches[0].search.facets[0]: gender has no value 'femal' (did you mean female or "
            "male?): use male, female or unisex",
            id="value of a facet",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      search:\n        facets:\n"
            "          - names: gender\n            name: gender\n            values: [female]\n",
            "7: searches[0].search.facets[0].names: no such field. Did you mean 'name'?",
            id="unknown field of a facet",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      partitions: day\n      start_date: 2026-11-01\n"
            "      search: {max_products: 9}\n",
            "4: searches[0]: Search 'boots': partitions: day with max_products would store a part",
            id="day partitions with a row cap",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      schedule: every morning\n",
            "5: searches[0].schedule: 'every morning' is no cron schedule: write five fields",
            id="schedule",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      schedule: {cron: '@daily', timezone: Berlin}\n",
            "5: searches[0].schedule: there is no time zone 'Berlin': write a name such as",
            id="time zone",
        ),
        pytest.param(
            "  details: true\n",
            "3: details: no such field. It is a field of 'searches'",
            id="details without products",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      details: often\n",
            "5: searches[0].details: 'often' is not a choice. Write true, false or a mapping",
            id="text for a switch",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      checks:\n        max_age: 48\n",
            "6: searches[0].checks.max_age: no such field. Did you mean 'max_age_hours'?",
            id="unknown limit of the checks",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      checks:\n        max_bad_price_share: 30\n",
            "5: searches[0].checks: max_bad_price_share must be a share from 0 to 1",
            id="limit of the checks that is out of range",
        ),
        pytest.param(
            '  connection:\n    budget_usd: "{{ env.OCTOGEN_UNSET }}"\n',
            "4: connection.budget_usd: the environment variable OCTOGEN_UNSET is not set",
            id="variable that is not set",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      search:\n        q: '{{ env.OCTOGEN_UNSET }}'\n",
            "6: searches[0].search.q: the environment variable OCTOGEN_UNSET is not set",
            id="variable of a search that is not set",
        ),
        pytest.param(
            "  linked_datasets:\n    principal: user:me@example.com\n",
            "3: linked_datasets.project: is required",
            id="linked datasets without a project",
        ),
        pytest.param(
            "  linked_datasets:\n    project: p\n    source: {exchange: x, listings: [y]}\n",
            "5: linked_datasets.source: source needs either exchange or listings",
            id="exchange and listings",
        ),
        pytest.param(
            "  catalogs_as: assets\n  searches:\n    - name: shops\n      partitions: catalog\n"
            "      sensor: running\n",
            "7: searches[0].sensor: needs catalogs_as: partitions.",
            id="sensor for catalogs that are assets",
        ),
    ],
)
def test_a_mistake_is_told_with_line_field_and_choices(
    mistakes: Callable[[str], list[str]], attributes: str, expected: str
) -> None:
    [line] = mistakes(attributes)
    assert line.startswith(expected)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            "  linked_datasets:\n    project: p\n    principal: user:me@example.com\n",
            '3: linked_datasets: linked_datasets needs mcp: pip install "octogen-dagster[mcp]"',
        ),
    ],
)
def test_a_missing_extra_is_told_with_its_line(
    mistakes: Callable[[str], list[str]],
    attributes: str,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name == "mcp":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    assert mistakes(attributes) == [expected]
