"""`dg scaffold defs` writes a first YAML file that loads, and the variables that it needs."""

from __future__ import annotations

import io
import stat
from collections.abc import Callable, Iterator
from typing import Any

import click
import pytest
import yaml
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox
from pydantic import ValidationError
from rich.text import Text

from octogen_dagster.components import OctogenComponent, OctogenLinkedDatasetsComponent
from octogen_dagster.sandbox import DEFAULT_API_KEY
from octogen_dagster.sandbox.server import Sandbox


@pytest.fixture
def project() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as project:
        yield project


@pytest.fixture
def scaffold(project: DefsFolderSandbox) -> Callable[..., dict[str, Any]]:
    """Scaffold a component with these options and return its attributes."""

    def scaffold(**params: Any) -> dict[str, Any]:
        folder = project.scaffold_component(OctogenComponent, "octogen", scaffold_params=params)
        content = yaml.safe_load((folder / "defs.yaml").read_text())
        assert content.keys() == {"type", "attributes"}
        with project.load_component_and_build_defs(folder):
            pass  # what was written is valid
        attributes: dict[str, Any] = content["attributes"]
        return attributes

    return scaffold


def environment(project: DefsFolderSandbox) -> list[str]:
    path = project.project_root / ".env"
    return path.read_text().splitlines() if path.exists() else []


def test_the_sandbox_needs_no_edit(
    scaffold: Callable[..., dict[str, Any]], project: DefsFolderSandbox
) -> None:
    assert scaffold(sandbox=True) == {
        "connection": {
            "api_key": "{{ env.OCTOGEN_PLATFORM_API_KEY }}",
            "base_url": "{{ env.OCTOGEN_BASE_URL }}",
        },
        "catalog_source": {"hosts": Sandbox().hosts},
        "storage": {"base_dir": "snapshots"},
        "searches": [
            {"name": "octogen_products", "partitions": "catalog"},
            {"name": "boots", "search": {"q": "boots"}},
        ],
    }
    assert environment(project) == [
        f"OCTOGEN_PLATFORM_API_KEY={DEFAULT_API_KEY}",
        "OCTOGEN_BASE_URL=http://127.0.0.1:8787/v1",
    ]


def test_only_missing_variables_are_appended_for_the_owner_only(
    scaffold: Callable[..., dict[str, Any]], project: DefsFolderSandbox
) -> None:
    path = project.project_root / ".env"
    scaffold(sandbox=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    own = f"# mine\nexport OCTOGEN_PLATFORM_API_KEY='{DEFAULT_API_KEY}'\nC=${{A}}"
    path.write_text(own)
    scaffold(sandbox=True)
    scaffold(sandbox=True)
    assert path.read_text() == f"{own}\nOCTOGEN_BASE_URL=http://127.0.0.1:8787/v1\n"


def test_the_variables_are_those_of_a_sandbox_on_the_default_port(
    scaffold: Callable[..., dict[str, Any]], project: DefsFolderSandbox
) -> None:
    scaffold(sandbox=True)
    with Sandbox() as sandbox:
        expected = {**sandbox.environment, "OCTOGEN_BASE_URL": "http://127.0.0.1:8787/v1"}
    assert dict(line.split("=", 1) for line in environment(project)).items() <= expected.items()


def test_real_catalogs_leave_the_key_to_the_user(
    scaffold: Callable[..., dict[str, Any]],
    project: DefsFolderSandbox,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OCTOGEN_PLATFORM_API_KEY", raising=False)
    attributes = scaffold(
        hosts=["acme.com", "zen.example"], query="Linen dress!", base_dir="gs://my-bucket/octogen"
    )
    assert attributes == {
        "connection": {"api_key": "{{ env.OCTOGEN_PLATFORM_API_KEY }}"},
        "catalog_source": {"hosts": ["acme.com", "zen.example"]},
        "storage": {"base_dir": "gs://my-bucket/octogen"},
        "searches": [
            {"name": "octogen_products", "partitions": "catalog"},
            {"name": "linen_dress", "search": {"q": "Linen dress!"}},
        ],
    }
    assert environment(project) == []
    assert "Set OCTOGEN_PLATFORM_API_KEY in the environment or in" in capsys.readouterr().out


def test_linked_datasets_have_a_file_of_their_own(project: DefsFolderSandbox) -> None:
    params = {"project": "my-project", "principal": "user:me@example.com"}
    folder = project.scaffold_component(
        OctogenLinkedDatasetsComponent, "linked", scaffold_params=params
    )
    assert yaml.safe_load((folder / "defs.yaml").read_text())["attributes"] == params
    with project.load_component_and_build_defs(folder):
        pass


@pytest.mark.parametrize("text", ["a: {b", "#", "- '\"", "501", "null", "é ☃", "a: b # c"])
def test_any_text_is_written_as_it_is(scaffold: Callable[..., dict[str, Any]], text: str) -> None:
    attributes = scaffold(granted=True, query=text, base_dir=text)
    assert attributes["searches"][1]["search"] == {"q": text}
    assert attributes["storage"] == {"base_dir": text}


def test_a_search_is_not_named_like_the_whole_catalogs(
    scaffold: Callable[..., dict[str, Any]],
) -> None:
    searches = scaffold(granted=True, query="Octogen products")["searches"]
    assert [search["name"] for search in searches] == [
        "octogen_products",
        "octogen_products_search",
    ]


def test_a_variable_of_the_user_is_kept_and_told_of(
    scaffold: Callable[..., dict[str, Any]],
    project: DefsFolderSandbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (project.project_root / ".env").write_text("OCTOGEN_PLATFORM_API_KEY=octo_live_mine\n")
    scaffold(sandbox=True)
    assert environment(project) == [
        "OCTOGEN_PLATFORM_API_KEY=octo_live_mine",
        "OCTOGEN_BASE_URL=http://127.0.0.1:8787/v1",
    ]
    printed = capsys.readouterr().out
    assert "already has another OCTOGEN_PLATFORM_API_KEY, which was kept" in printed
    assert f"OCTOGEN_PLATFORM_API_KEY={DEFAULT_API_KEY}" in printed
    assert "octo_live_mine" not in printed


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"sandbox": True, "hosts": ["acme.com"]},
            "--sandbox and --hosts exclude each other: choose one source of catalogs",
        ),
        ({"hosts": [" "]}, "a value is empty: leave the option out or give it a value"),
        (
            {"granted": True, "query": "a\nb"},
            r"'a\\nb' has characters that cannot be printed: remove them",
        ),
        ({"shops": ["acme.com"]}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_do_not_fit_write_nothing(
    scaffold: Callable[..., dict[str, Any]],
    project: DefsFolderSandbox,
    params: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(ValidationError, match=message):
        scaffold(**params)
    assert list(project.defs_folder_path.iterdir()) == []
    assert environment(project) == []


def test_a_script_without_a_source_gets_the_granted_catalogs(
    scaffold: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    assert "catalog_source" not in scaffold()


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
    scaffold: Callable[..., dict[str, Any]],
    project: DefsFolderSandbox,
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
    source: dict[str, list[str]] | None,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    with click.Context(click.Command("scaffold")):
        attributes = scaffold(query="hats")
    assert attributes.get("catalog_source") == source
    assert attributes["searches"][1] == {"name": "hats", "search": {"q": "hats"}}
    assert bool(environment(project)) is (typed == "\n")


def test_a_person_who_leaves_can_begin_again(
    scaffold: Callable[..., dict[str, Any]],
    project: DefsFolderSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("hosts\n"))
    with click.Context(click.Command("scaffold")), pytest.raises(click.Abort):
        scaffold()
    assert list(project.defs_folder_path.iterdir()) == []


def test_the_help_of_the_command_shows_the_brackets_of_the_example() -> None:
    text = OctogenComponent.__doc__ or ""
    assert Text.from_markup(text).plain == text  # dg reads it as rich's markup
