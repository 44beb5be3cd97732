from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import dagster as dg
import pytest
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox
from pydantic import Field, model_validator
from typing_extensions import Self

from octogen_dagster.components.yaml_component import YamlComponent, YamlModel
from octogen_dagster.errors import OctogenComponentError


class Changes(YamlModel):
    name: str | None = None


class Search(YamlModel):
    name: str
    partitions: Literal["none", "catalog", "day"] = "none"
    changes: bool | Changes = False
    max_products: int | None = None


class Connection(YamlModel):
    api_key: str | None = None
    reserve: float = 0.2

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.reserve > 1:
            raise ValueError("reserve is a share: use a number from 0 to 1")
        return self


class Shops(YamlComponent):
    connection: Connection = Field(default_factory=Connection)
    searches: list[Search] = Field(default_factory=list)
    owner: str = "nobody"

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions(assets=[dg.AssetSpec(search.name) for search in self.searches])


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def load(sandbox: DefsFolderSandbox) -> Callable[[str], Shops]:
    def load(attributes: str) -> Shops:
        folder = sandbox.scaffold_component(Shops, "shops")
        (folder / "defs.yaml").write_text(f"type: {__name__}.Shops\nattributes:\n{attributes}")
        with sandbox.load_component_and_build_defs(folder) as (component, _):
            assert isinstance(component, Shops)
            return component

    return load


@pytest.fixture
def mistakes(
    load: Callable[[str], Shops], sandbox: DefsFolderSandbox
) -> Callable[[str], list[str]]:
    """The lines of the error for some attributes, which begin in line 3 of the file."""

    def mistakes(attributes: str) -> list[str]:
        with pytest.raises(Exception, match="Error while loading component") as caught:
            load(attributes)
        error = caught.value.__cause__
        assert isinstance(error, OctogenComponentError)
        first, *lines = str(error).splitlines()
        assert first == "Shops cannot be loaded. Correct its YAML:"
        file = f"{sandbox.defs_folder_path / 'shops' / 'defs.yaml'}:"
        assert all(line.startswith(file) for line in lines)
        return [line.removeprefix(file) for line in lines]

    return mistakes


def test_valid_attributes_are_loaded_with_their_templates(
    load: Callable[[str], Shops], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOPS_OWNER", "me")
    shops = load(
        '  owner: "{{ env.SHOPS_OWNER }}"\n'
        "  searches:\n"
        "    - name: boots\n"
        '      max_products: "{{ 2 + 3 }}"\n'
        "      changes: {name: boot_changes}\n"
    )
    assert shops.owner == "me"
    assert shops.searches == [
        Search(name="boots", max_products=5, changes=Changes(name="boot_changes"))
    ]


@pytest.mark.parametrize("text", ["501", "None", "1e5", "[1]", "'a'", "501 {{ 1 }}", "true", ""])
def test_a_text_remains_a_text(load: Callable[[str], Shops], text: str) -> None:
    assert load(f"  owner: {json.dumps(text)}\n").owner == text.replace("{{ 1 }}", "1")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        pytest.param(
            "  serches: []\n",
            "3 - attributes.serches: no such field. Did you mean 'searches'? "
            "The fields are connection, owner, searches",
            id="unknown field",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      api_key: x\n",
            "5 - attributes.searches[0].api_key: no such field. "
            "The fields are changes, max_products, name, partitions",
            id="unknown field without a similar one",
        ),
        pytest.param(
            "  reserve: 0.1\n",
            "3 - attributes.reserve: no such field. It is a field of 'connection'",
            id="field in the wrong place",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      changes:\n        nam: b\n",
            "6 - attributes.searches[0].changes.nam: no such field. Did you mean 'name'? "
            "The fields are name",
            id="unknown field in one branch of a union",
        ),
        pytest.param(
            "  searches:\n    - partitions: day\n",
            "4 - attributes.searches[0].name: is required",
            id="missing field",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n    - name: hats\n      partitions: days\n",
            "6 - attributes.searches[1].partitions: 'days' is not a choice. Did you mean 'day'? "
            "Choose 'none', 'catalog' or 'day'",
            id="invalid choice",
        ),
        pytest.param(
            "  searches:\n    name: boots\n",
            "3 - attributes.searches: must be a list",
            id="mapping for a list",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      changes: 5\n",
            "5 - attributes.searches[0].changes: must be true or false or a mapping",
            id="wrong type of a union",
        ),
        pytest.param(
            "  searches:\n    - name: boots\n      max_products: many\n",
            "5 - attributes.searches[0].max_products: must be a whole number",
            id="text for a number",
        ),
        pytest.param(
            "  connection:\n    api_key: octo_live_secret\n    reserve: 20\n",
            "3 - attributes.connection: reserve is a share: use a number from 0 to 1",
            id="rule of the model",
        ),
        pytest.param(
            "  connection:\n    api_key: [octo_live_secret]\n",
            "4 - attributes.connection.api_key: must be text",
            id="key of the wrong type",
        ),
    ],
)
def test_a_mistake_is_told_with_line_field_and_choices(
    mistakes: Callable[[str], list[str]], attributes: str, expected: str
) -> None:
    assert mistakes(attributes) == [expected]


def test_all_mistakes_in_the_form_are_told_at_once(mistakes: Callable[[str], list[str]]) -> None:
    lines = mistakes("  searches:\n    - nam: boots\n  serches: []\n")
    assert [line.split(":")[0] for line in lines] == [
        "4 - attributes.searches[0].name",
        "4 - attributes.searches[0].nam",
        "5 - attributes.serches",
    ]


def test_the_error_has_no_trace_of_what_pydantic_found(load: Callable[[str], Shops]) -> None:
    with pytest.raises(Exception, match="Error while loading component") as caught:
        load("  connection: {api_key: octo_live_secret, reserve: 20}\n")
    error: BaseException | None = caught.value
    while error is not None:
        assert "octo_live_secret" not in repr(error)
        assert "octo_live_secret" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_without_a_file_a_mistake_is_told_with_its_field() -> None:
    with pytest.raises(OctogenComponentError) as caught:
        Shops.from_attributes_dict(attributes={"searches": [{"nam": "boots", "name": "b"}]})
    assert str(caught.value).splitlines()[1:] == [
        "attributes.searches[0].nam: no such field. Did you mean 'name'? "
        "The fields are changes, max_products, name, partitions"
    ]


YAML_WITH_MISTAKES = """\
type: shops.components.Shops
attributes:
  owner: 7
  searches:
    - name: boots
      partitions: days
      changes: 5
      serch: x
    - name: hats
      partitions: "{{ env.PARTITIONS }}"
      changes: {nam: x}
"""


@pytest.mark.slow
def test_dg_check_yaml_names_line_and_choices(tmp_path: Path) -> None:
    package = tmp_path / "shops"
    (package / "defs" / "shops").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "defs" / "__init__.py").touch()
    (package / "components.py").write_text(f"from {__name__} import Shops as Shops\n")
    (package / "defs" / "shops" / "defs.yaml").write_text(YAML_WITH_MISTAKES)
    (tmp_path / "dg.toml").write_text(
        'directory_type = "project"\n[project]\nroot_module = "shops"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "dagster_dg_cli.cli", "check", "yaml"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=False,
    )
    file = f"{package / 'defs' / 'shops' / 'defs.yaml'}:"
    found = [line.removeprefix(file) for line in done.stdout.splitlines() if file in line]
    unexpected = "Additional properties are not allowed"
    assert sorted(
        line.replace(" - shops.components.Shops attributes.", ", ") for line in found
    ) == [
        "11, searches.1.changes 'nam' is not one of ['name']",
        f"11, searches.1.changes.nam {unexpected} ('nam' was unexpected)",
        "3, owner 7 is not of type 'string'",
        "5, searches.0 'serch' is not one of ['name', 'partitions', 'changes', 'max_products']",
        "6, searches.0.partitions 'days' is not one of ['none', 'catalog', 'day']",
        "7, searches.0.changes 5 is not of type 'boolean', 'object', 'string'",
        f"8, searches.0.serch {unexpected} ('serch' was unexpected)",
    ]
    assert done.returncode == 1
