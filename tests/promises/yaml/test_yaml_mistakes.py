"""A mistake in YAML names file, line, field and the near miss, and shows no key.

`tests/golden/mistakes.yaml` has files and what is told of their lines.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from octogen_dagster.components import OctogenComponent
from octogen_dagster.errors import OctogenComponentError
from tests.promises.yaml.yaml_projects import LINKED, TYPE

GOLDEN = Path(__file__).parents[2] / "golden"
SECRET = "octo_live_00000000000000000000000000000000_secret"
OTHER_SECRET = "a-token-of-another-service"


@pytest.fixture(scope="module")
def project() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as project:
        folder = project.scaffold_component(OctogenComponent, "octogen")
        (folder / "broken.py").write_text("def tell(:")
        (folder / "importing.py").write_text("import not_there")
        yield project


@pytest.fixture
def mistakes(project: DefsFolderSandbox) -> Callable[[str], list[str]]:
    """The lines of the error for a file, without its path."""

    def mistakes(text: str) -> list[str]:
        path = project.defs_folder_path / "octogen" / "defs.yaml"
        path.write_text(text.replace("SECRET", SECRET))
        with (
            pytest.raises(Exception, match="Error while loading component") as caught,
            project.load_component_and_build_defs(path.parent),
        ):
            pass
        error = caught.value.__cause__
        assert isinstance(error, OctogenComponentError)
        assert not shows_secret(caught.value)
        first, *lines = str(error).splitlines()
        assert first.endswith("Component cannot be loaded. Correct its YAML:")
        assert all(line.startswith(f"{path}:") for line in lines)
        return [line.removeprefix(f"{path}:") for line in lines]

    return mistakes


def shows_secret(error: BaseException | None) -> bool:
    """True if an error or one that is printed with it has the secret."""
    if error is None:
        return False
    context = None if error.__suppress_context__ else error.__context__
    text = f"{error} {error!r}"
    return SECRET in text or OTHER_SECRET in text or shows_secret(error.__cause__ or context)


@pytest.mark.parametrize("text", (GOLDEN / "mistakes.yaml").read_text().split("---\n"))
def test_each_kind_of_mistake_is_told_by_its_line_and_field(
    mistakes: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("OCTOGEN_HOST_OF_THE_TEST", OTHER_SECRET)
    expected = [
        (f"{number} - {field if field == 'attributes' else f'attributes.{field}'}: ", words)
        for number, line in enumerate(text.splitlines(), 1)
        for field, words in re.findall(r"  # ([^: ]+): (.+)", line)
    ]
    for (place, words), line in zip(expected, mistakes(text), strict=True):
        assert line.startswith(place)
        assert words in line


@pytest.mark.parametrize(
    ("part", "field", "limits"),
    [
        ("SearchSettings", "catalogs_per_run", {"type": "integer", "minimum": 1}),
        ("ProductSearch", "page_size", {"type": "integer", "minimum": 1, "maximum": 100}),
        ("EmailNotifier", "email_to", {"type": "array", "minItems": 1}),
        ("ProductSearch", "similar_to_brands", {"type": "array", "maxItems": 10}),
    ],
)
def test_an_editor_checks_a_limit_but_for_a_template(
    part: str, field: str, limits: dict[str, Any]
) -> None:
    schema = OctogenComponent.model().model_json_schema()["$defs"][part]["properties"][field]
    assert re.search(schema["if"]["pattern"], "{{ env.VALUE }}")
    assert schema["else"] == schema["else"] | limits


def test_without_a_file_a_mistake_is_told_with_its_field() -> None:
    with pytest.raises(OctogenComponentError) as caught:
        OctogenComponent.from_attributes_dict(attributes={"searches": [{"nam": "boots"}]})
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith("attributes.searches[0].nam: no setting 'nam'. Did you mean 'name'?")


def boots(**search: Any) -> dict[str, Any]:
    return {"searches": [{"name": "boots", **search}]}


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        (
            boots(search={"facets": [{"name": "colour", "values": ["x"]}]}),
            "Did you mean 'color'",
        ),
        (
            boots(search={"facets": [{"name": "sex", "values": ["x"]}]}),
            "Did you mean 'gender'",
        ),
        (
            boots() | {"connection": {"reserved_percent": 0.2}},
            "reserved_percent is 0.2 %. If you mean 20 %, write 20",
        ),
        (
            boots(history=True, alerts=[{"kind": "price_dropped", "percent": 0.1}]),
            "percent is 0.1 %. If you mean 10 %, write 10",
        ),
    ],
)
def test_what_may_be_a_mistake_is_told_of_once_in_the_log(
    attributes: dict[str, Any], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`dg check defs` shows the log, and no warnings of Python."""
    OctogenComponent.from_attributes_dict(attributes=attributes)
    (line,) = caplog.messages
    assert told in line


@pytest.mark.parametrize(
    ("text", "package", "told"),
    [
        pytest.param(
            f"type: {LINKED}\nattributes: {{project: p, principal: 'user:me@example.com'}}",
            "mcp",
            "2 - attributes: OctogenLinkedDatasetsComponent needs mcp. "
            'Add "octogen-dagster[mcp]" to your project\'s dependencies.',
            id="linked datasets",
        ),
        pytest.param(
            f"type: {TYPE}\nattributes:\n  searches:\n"
            "  - {name: boots, tables: {destination: {duckdb: shop.duckdb}}}",
            "duckdb",
            "4 - attributes.searches[0].tables.destination: a table needs duckdb. "
            'Add "octogen-dagster[duckdb]" to your project\'s dependencies.',
            id="tables",
        ),
    ],
)
def test_a_missing_extra_is_told(
    mistakes: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    package: str,
    told: str,
) -> None:
    installed = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    assert mistakes(text) == [told]


YAML_WITH_MISTAKES = f"""\
type: {TYPE}
attributes:
  name: 7
  searches:
    - name: boots
      partitions: days
      changes: 5
      serch: x
    - name: hats
      partitions: "{{{{ env.PARTITIONS }}}}"
      changes: {{nam: x}}
  connection:
    api_key: {SECRET}
    budgt_usd: 3
"""


@pytest.mark.slow
def test_dg_check_yaml_names_line_and_choices(tmp_path: Path) -> None:
    defs = tmp_path / "shops" / "defs"
    (defs / "shops").mkdir(parents=True)
    for folder in (defs, defs.parent):
        (folder / "__init__.py").touch()
    (defs / "shops" / "defs.yaml").write_text(YAML_WITH_MISTAKES)
    (tmp_path / "dg.toml").write_text(
        'directory_type = "project"\n[project]\nroot_module = "shops"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "dagster_dg_cli.cli", "check", "yaml"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    # The file is printed below each message, with the lines around the mistake.
    told = [line for line in done.stdout.splitlines() if " - octogen_dagster" in line]
    assert not any(SECRET in line for line in told)
    lines = sorted(
        line.split("defs.yaml:")[1].replace(f" - {TYPE} attributes.", ", ") for line in told
    )
    unexpected = "Additional properties are not allowed"
    assert [line.partition(" is not one of [")[0] for line in lines] == [
        "11, searches.1.changes 'nam'",
        f"11, searches.1.changes.nam {unexpected} ('nam' was unexpected)",
        "12, connection 'budgt_usd'",
        f"14, connection.budgt_usd {unexpected} ('budgt_usd' was unexpected)",
        "3, name 7 is not of type 'string'",
        "5, searches.0 'serch'",
        "6, searches.0.partitions 'days'",
        "7, searches.0.changes 5 is not of type 'object', 'boolean'",
        f"8, searches.0.serch {unexpected} ('serch' was unexpected)",
    ]
    assert any("'search'" in line for line in lines if "'serch' is not one of" in line)
