"""`dg scaffold defs` writes a first YAML file that loads, and the variables that it needs."""

from __future__ import annotations

import inspect
import io
import re
import stat
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import dagster as dg
import pytest
import yaml
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox
from dagster.components.testing.test_cases import TestTranslation as Cases
from dagster.components.testing.utils import component_defs
from dotenv import dotenv_values
from pydantic import ValidationError
from rich.text import Text

import octogen_dagster
from octogen_dagster.components import (
    OctogenAssetData,
    OctogenComponent,
    OctogenLinkedDatasetsComponent,
)
from octogen_dagster.sandbox import DEFAULT_API_KEY
from octogen_dagster.sandbox.server import Sandbox
from tests.promises.yaml.yaml_projects import load

KEY = f"OCTOGEN_PLATFORM_API_KEY={DEFAULT_API_KEY}"
URL = "OCTOGEN_BASE_URL=http://127.0.0.1:8787/v1"
PRODUCTS = {"name": "octogen_products", "partitions": "catalog"}

Scaffold = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _home_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/home/me/dagster")


@pytest.fixture
def project() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as project:
        yield project


@pytest.fixture
def variables(project: DefsFolderSandbox) -> Path:
    """The project's `.env`, which may not be there."""
    return project.project_root / ".env"


@pytest.fixture
def scaffold(project: DefsFolderSandbox) -> Scaffold:
    """Scaffold a component with these options and return its attributes."""

    def scaffold(component: Any = OctogenComponent, **params: Any) -> dict[str, Any]:
        folder = project.scaffold_component(component, "octogen", scaffold_params=params)
        content = yaml.safe_load((folder / "defs.yaml").read_text())
        assert content.keys() == {"type", "attributes"}
        with project.load_component_and_build_defs(folder):
            pass  # what was written is valid
        attributes: dict[str, Any] = content["attributes"]
        return attributes

    return scaffold


def test_the_sandbox_needs_no_edit(
    scaffold: Scaffold, variables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert scaffold(sandbox=True) == {
        "connection": {"api_key": "{{ env.OCTOGEN_PLATFORM_API_KEY }}"},
        "catalog_source": {"hosts": Sandbox().hosts},
        "storage": {"base_dir": "snapshots"},
        "searches": [PRODUCTS, {"name": "boots", "search": {"q": "boots"}}],
    }
    assert re.search(
        r"Next:\n.*octogen-dagster sandbox &\n.*launch --assets boots\n$", capsys.readouterr().out
    )
    assert variables.read_text().splitlines() == [KEY, URL]
    assert stat.S_IMODE(variables.stat().st_mode) == 0o600


def test_a_variable_of_the_user_is_kept_and_told_of(
    scaffold: Scaffold, variables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = "# mine\nexport OCTOGEN_PLATFORM_API_KEY='octo_live_mine'\nC=${A}"
    variables.write_text(own)
    scaffold(sandbox=True)
    scaffold(sandbox=True)
    assert variables.read_text() == f"{own}\n{URL}\n"
    printed = capsys.readouterr().out
    assert "already sets OCTOGEN_PLATFORM_API_KEY and was not changed" in printed
    assert KEY in printed
    assert "octo_live_mine" not in printed


def test_real_catalogs_leave_the_key_to_the_user(
    scaffold: Scaffold, variables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = ["acme.com", "zen.example"]
    assert scaffold(hosts=hosts, query="Linen dress!", base_dir="gs://my-bucket/octogen") == {
        "connection": {"api_key": "{{ env.OCTOGEN_PLATFORM_API_KEY }}"},
        "catalog_source": {"hosts": hosts},
        "storage": {"base_dir": "gs://my-bucket/octogen"},
        "searches": [PRODUCTS, {"name": "linen_dress", "search": {"q": "Linen dress!"}}],
    }
    assert not variables.exists()
    printed = capsys.readouterr().out
    assert "Set OCTOGEN_PLATFORM_API_KEY in the environment or in" in printed
    estimate = "estimate --host acme.com --host zen.example"
    assert re.search(rf"Next:\n.*octogen-dagster doctor\n.*{estimate}\n.*dg dev\n$", printed)


def test_runs_are_kept_in_the_project_if_nothing_says_where(
    scaffold: Scaffold,
    project: DefsFolderSandbox,
    variables: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("DAGSTER_HOME")
    scaffold(hosts=["acme.com"])
    home = project.project_root / ".dagster_home"
    assert dotenv_values(variables) == {"DAGSTER_HOME": str(home)}
    assert stat.S_IMODE(variables.stat().st_mode) == 0o600
    assert (home / ".gitignore").read_text() == "*\n"
    assert f"Dagster now stores its runs in {home}" in capsys.readouterr().out
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert instance.get_runs() == []

    variables.write_text("DAGSTER_HOME=/mine\n")
    scaffold(hosts=["acme.com"])
    assert variables.read_text() == "DAGSTER_HOME=/mine\n"


def test_linked_datasets_have_a_file_of_their_own(
    scaffold: Scaffold, capsys: pytest.CaptureFixture[str]
) -> None:
    params = {"project": "my-project", "principal": "user:me@example.com"}
    assert scaffold(OctogenLinkedDatasetsComponent, **params) == params
    assert re.search(r"Next:\n.*login\n.*doctor\n.*dg dev\n$", capsys.readouterr().out)


@pytest.mark.parametrize("text", ["a: {b", "#", "- '\"", "501", "null", "é ☃", "a: b # c"])
def test_any_text_is_written_as_it_is(scaffold: Scaffold, text: str) -> None:
    attributes = scaffold(granted=True, query=text, base_dir=text)
    assert attributes["searches"][1]["search"] == {"q": text}
    assert attributes["storage"] == {"base_dir": text}


def test_a_search_is_not_named_like_the_whole_catalogs(scaffold: Scaffold) -> None:
    searches = scaffold(granted=True, query="Octogen products")["searches"]
    assert searches[1]["name"] == "octogen_products_search"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"sandbox": True, "hosts": ["acme.com"]},
            "--sandbox and --hosts cannot be combined. Choose one catalog source",
        ),
        ({"hosts": [" "]}, "a value is empty"),
        ({"granted": True, "query": "a\nb"}, "unprintable characters"),
        ({"shops": ["acme.com"]}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_do_not_fit_write_nothing(
    scaffold: Scaffold,
    project: DefsFolderSandbox,
    variables: Path,
    params: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValidationError, match=message):
        scaffold(**params)
    assert list(project.defs_folder_path.iterdir()) == []
    assert not variables.exists()


class Terminal(io.StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "source"),
    [
        ("\n", {"hosts": Sandbox().hosts}),
        ("granted\n", None),
        ("shops\nhosts\nacme.com, zen.example,\n", {"hosts": ["acme.com", "zen.example"]}),
        ("keys\nacme\n", {"keys": ["acme"]}),
    ],
)
def test_a_person_is_asked_for_the_source(
    scaffold: Scaffold,
    variables: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    source: dict[str, list[str]] | None,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    with click.Context(click.Command("scaffold")):
        assert scaffold(query="hats").get("catalog_source") == source
    assert variables.exists() is (typed == "\n")


def test_a_script_is_not_asked_and_a_person_who_leaves_can_begin_again(
    scaffold: Scaffold, project: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("hosts\n"))
    with click.Context(click.Command("scaffold")), pytest.raises(click.Abort):
        scaffold()
    assert list(project.defs_folder_path.iterdir()) == []
    assert "catalog_source" not in scaffold()


def test_a_person_who_leaves_in_a_folder_that_has_files_is_told_nothing_else(
    project: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = project.defs_folder_path / "octogen"
    folder.mkdir(parents=True)
    (folder / "mine.py").touch()
    scaffolder = scaffolder_of(OctogenComponent)
    request = dg.ScaffoldRequest(
        type_name="octogen_dagster.components.OctogenComponent",
        target_path=folder,
        scaffold_format="yaml",
        project_root=project.project_root,
        params=scaffolder.get_scaffold_params()(),
    )
    monkeypatch.setattr("sys.stdin", Terminal("hosts\n"))
    with click.Context(click.Command("scaffold")), pytest.raises(click.Abort):
        scaffolder.scaffold(request)
    assert [path.name for path in folder.iterdir()] == ["mine.py"]


def scaffolder_of(component: Any) -> Any:
    """The scaffolder with which `dg` scaffolds a component."""
    from dagster.components.scaffold.scaffold import get_scaffolder

    return get_scaffolder(component)


def test_catalogs_of_octogen_beside_variables_of_the_sandbox_are_warned_of(
    scaffold: Scaffold, variables: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaffold(sandbox=True)
    capsys.readouterr()
    scaffold(hosts=["acme.com"])
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        f"{variables} still points to the sandbox. To read from Octogen, remove the line with "
        "OCTOGEN_BASE_URL, and write your API key after OCTOGEN_PLATFORM_API_KEY=." in printed
    )
    variables.write_text("OCTOGEN_PLATFORM_API_KEY=octo_live_mine\n")
    scaffold(hosts=["acme.com"])
    printed = capsys.readouterr().out
    assert "points to the sandbox" not in printed
    assert "Set OCTOGEN_PLATFORM_API_KEY" not in printed  # it is set there


@pytest.mark.parametrize("component", [OctogenComponent, OctogenLinkedDatasetsComponent])
def test_the_help_of_the_command_ends_with_the_example_as_it_is(
    component: type[dg.Component],
) -> None:
    text = component.__doc__ or ""
    assert Text.from_markup(text).plain == text  # dg reads it as rich's markup
    example = textwrap.dedent(text.partition("Example:\n")[2])
    assert yaml.safe_load(example)["type"].endswith(component.__name__)


def test_no_public_docstring_has_markup_of_sphinx() -> None:
    public = [getattr(octogen_dagster, name) for name in octogen_dagster.__all__]
    own = [one for one in public if inspect.isclass(one) or inspect.isfunction(one)]
    members = [each for one in own if inspect.isclass(one) for each in vars(one).values()]
    texts = [each.__doc__ or "" for each in (*own, *filter(inspect.isfunction, members))]
    assert not [text for text in texts if re.search(r"^\s*\.\. \w|:\w+:`|``|::$", text, re.M)]


# What a YAML file and a subclass change of the assets of the component.


SEARCH: dict[str, Any] = {"name": "boots", "search": {"q": "boots"}}
BOOTS = dg.AssetKey("boots")
BRANDS = dg.AssetKey("boots_brands")


class TestTranslation(Cases):
    """Every case of Dagster's own, for all assets, for one, and for one that follows."""

    @pytest.mark.parametrize("where", ["all", "one", "follower"])
    def test_of(
        self,
        where: str,
        attributes: dict[str, Any],
        assertion: Callable[[dg.AssetSpec], bool],
        key_modifier: Callable[[dg.AssetKey], dg.AssetKey] | None,
    ) -> None:
        key = BRANDS if where == "follower" else BOOTS
        if where == "follower" and "deps" in attributes:
            assertion = _has_both_deps
        settings: dict[str, dict[str, Any]] = {
            "all": {"searches": [SEARCH], "translation": attributes},
            "one": {"searches": [SEARCH | {"translation": attributes}]},
            "follower": {"searches": [SEARCH | {"brands": {"translation": attributes}}]},
        }
        with load(settings[where]) as (_, defs):
            specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
        assert assertion(specs[key_modifier(key) if key_modifier else key])


def _has_both_deps(spec: dg.AssetSpec) -> bool:
    """True if a dependency was added: Dagster cannot take the input of an asset away."""
    return {dep.asset_key for dep in spec.deps} == {BOOTS, dg.AssetKey("nonexistent")}


def test_what_follows_an_asset_finds_its_new_key() -> None:
    search = SEARCH | {"changes": True, "brands": True, "translation": {"key": "raw/shoes"}}
    attributes = {"catalogs": True, "searches": [search], "translation": {"key_prefix": "octogen"}}
    with load(attributes) as (_, defs):
        specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert set(specs) == {
        "octogen/octogen_catalogs",
        "raw/shoes",
        "octogen/shoes_brands",
        "octogen/shoes_changes",
        "octogen/shoes_history",
    }
    for name, of in (
        ("brands", "raw/shoes"),
        ("history", "raw/shoes"),
        ("changes", "octogen/shoes_history"),
    ):
        (dep,) = specs[f"octogen/shoes_{name}"].deps
        assert dep.asset_key.to_user_string() == of


def test_a_template_knows_the_spec_and_the_asset() -> None:
    translation = {
        "tags": {"kind": "{{ data.kind }}", "was": "{{ spec.key.path[-1] }}"},
        "freshness_policy": "{{ dg.FreshnessPolicy.time_window("
        "fail_window=datetime.timedelta(days=2)) }}",
    }
    with load({"searches": [SEARCH], "translation": translation}) as (_, defs):
        spec = next(each for each in defs.resolve_all_asset_specs() if each.key == BOOTS)
    assert spec.tags["kind"] == "products"
    assert spec.tags["was"] == "boots"
    assert spec.freshness_policy is not None


class Tagging(OctogenComponent):
    def get_asset_spec(self, data: OctogenAssetData) -> dg.AssetSpec:
        keywords = data.search.q if data.search else None
        spec = super().get_asset_spec(data)
        return spec.merge_attributes(tags={"q": keywords or "none", "kind": data.kind})


def test_a_subclass_changes_specs_and_yaml_comes_after_it() -> None:
    component = Tagging.resolve_from_dict(
        {
            "catalogs": True,
            "catalog_source": "granted",
            "searches": [SEARCH],
            "translation": {"tags": {"kind": "{{ spec.tags['kind'] }}-yaml"}},
        }
    )
    defs = component_defs(component=component)
    tags = {spec.key: spec.tags for spec in defs.resolve_all_asset_specs()}
    assert tags[BOOTS]["q"] == "boots"
    assert tags[BOOTS]["kind"] == "products-yaml"
    assert tags[dg.AssetKey("octogen_catalogs")]["q"] == "none"
