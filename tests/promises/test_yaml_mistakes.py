"""A mistake in YAML names file, line, field and the near miss, and shows no key.

`tests/golden/yaml_mistakes.txt` has the texts and `tests/golden/yaml_schemas.txt` the JSON schemas
of both components; `UPDATE_GOLDEN=1` writes them anew.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox

from octogen_dagster.components import OctogenComponent, OctogenLinkedDatasetsComponent
from octogen_dagster.errors import OctogenComponentError
from tests.promises.yaml_projects import LINKED, TYPE

GOLDEN = Path(__file__).parent.parent / "golden"
SECRET = "octo_live_00000000000000000000000000000000_secret"

MISTAKES = {
    "unknown field": f"connection:\n    api_key: {SECRET}\n    budgt_usd: 3",
    "unknown field at the top": "serches: []",
    "unknown field of a list": "searches:\n    - name: boots\n      q: boots",
    "unknown field of a switch": "searches:\n    - name: boots\n      changes: {nam: b}",
    "unknown field of a search": "searches:\n    - name: boots\n      search:\n        facet: []",
    "unknown field of a facet": "searches:\n    - name: boots\n      search:\n        facets:\n"
    "          - names: gender\n            name: gender\n            values: [female]",
    "unknown limit of the checks": "searches:\n    - name: boots\n      checks: {max_age: 48}",
    "unknown source": "catalog_source:\n    host: [acme.com]",
    "missing field": "searches:\n    - search: {q: boots}",
    "key that is written out": f"connection:\n    api_key: {SECRET}",
    "key that is a list": f"connection:\n    api_key: [{SECRET}]",
    "key beside a mistake": f"connection:\n    api_key: {SECRET}\n    attempts: many",
    "budget that is null": "connection:\n    budget_usd: null",
    "budget of an unset variable": 'connection:\n    budget_usd: "{{ env.OCTOGEN_UNSET }}"',
    "number out of range": 'connection:\n    api_key: "{{ env.KEY }}"\n    budget_usd: -3',
    "address without encryption": "connection:\n    base_url: http://octogen.example",
    "text for a mapping": "connection: octogen",
    "mapping for a list": "searches:\n    name: boots",
    "number for a switch": "searches:\n    - name: boots\n      changes: 5",
    "text for a switch": "searches:\n    - name: boots\n      details: often",
    "text for a number": "connection: {attempts: many}",
    "text for true or false": "searches:\n    - name: boots\n      checks: {blocking: sometimes}",
    "template of the wrong type": 'storage:\n    base_dir: "{{ 2 + 3 }}"',
    "near miss of a choice": "searches:\n    - name: boots\n      partitions: catalogs",
    "name with a hyphen": "searches:\n    - name: boots-2",
    "two searches of one name": "searches:\n    - name: boots\n    - name: hats\n    - name: boots",
    "hosts and keys": "catalog_source:\n    hosts: [acme.com]\n    keys: [acme]",
    "catalogs without hosts": "catalog_source: {catalogs: [acme]}",
    "text for a source": "catalog_source: acme.com",
    "page size": "searches:\n    - name: boots\n      search:\n        page_size: 300",
    "value of a facet": "searches:\n    - name: boots\n      search:\n        facets:\n"
    "          - name: gender\n            values: [femal]",
    "days without a first day": "searches:\n    - name: boots\n      partitions: day",
    "first day without days": "searches:\n    - name: boots\n      start_date: 2026-11-01",
    "no date": "searches:\n    - name: boots\n      partitions: day\n      start_date: yesterday",
    "days with a cap": "searches:\n    - name: boots\n      partitions: day\n"
    "      start_date: 2026-11-01\n      search: {max_products: 9}",
    "catalogs twice": "searches:\n    - name: boots\n      partitions: catalog\n"
    "      search: {catalogs: [acme]}",
    "sensor without catalogs": "searches:\n    - name: boots\n      sensor: true",
    "schedule": "searches:\n    - name: boots\n      schedule: every morning",
    "time zone": "searches:\n    - name: boots\n      schedule: {cron: '@daily', timezone: Berlin}",
    "ratio": "searches:\n    - name: boots\n      min_rows_ratio: 2",
    "threshold": "searches:\n    - name: boots\n      details: {failure_threshold: 5}",
    "limit of the checks": "searches:\n    - name: boots\n      checks: {max_rows_change: -1}",
    "age of the checks": "searches:\n    - name: boots\n      checks: {max_age_hours: 0}",
    "two places at once": "serches: []\n  searches:\n    - nam: boots",
}
LINKED_MISTAKES = {
    "no project": "principal: user:me@example.com",
    "no principal": "project: p",
    "near miss of a field": "project: p\n  principle: user:me@example.com",
    "exchange and listings": "project: p\n  source: {exchange: x, listings: [y]}",
    "unknown source": "project: p\n  source: oktogen",
}


@pytest.fixture(scope="module")
def project() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as project:
        project.scaffold_component(OctogenComponent, "octogen")
        yield project


@pytest.fixture
def mistakes(project: DefsFolderSandbox) -> Callable[[str, str], str]:
    """The lines of the error for some attributes, which begin in line 3 of the file."""

    def mistakes(attributes: str, type: str) -> str:
        path = project.defs_folder_path / "octogen" / "defs.yaml"
        path.write_text(f"type: {type}\nattributes:\n  {attributes}\n")
        with (
            pytest.raises(Exception, match="Error while loading component") as caught,
            project.load_component_and_build_defs(path.parent),
        ):
            pass
        error = caught.value.__cause__
        assert isinstance(error, OctogenComponentError)
        assert not shown(caught.value)
        first, *lines = str(error).splitlines()
        assert first == f"{type.rpartition('.')[2]} cannot be loaded. Correct its YAML:"
        assert all(line.startswith(f"{path}:") for line in lines)
        return "\n".join(f"  {line.removeprefix(f'{path}:')}" for line in lines)

    return mistakes


def shown(error: BaseException | None) -> bool:
    """True if an error or one that is printed with it has the secret."""
    if error is None:
        return False
    context = None if error.__suppress_context__ else error.__context__
    return SECRET in f"{error} {error!r}" or shown(error.__cause__ or context)


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def test_mistakes_are_told_as_before(mistakes: Callable[[str, str], str]) -> None:
    texts = [f"{name}:\n{mistakes(text, TYPE)}" for name, text in MISTAKES.items()]
    texts += [f"linked, {name}:\n{mistakes(y, LINKED)}" for name, y in LINKED_MISTAKES.items()]
    compare("yaml_mistakes.txt", "\n".join([*texts, ""]))


def test_the_json_schemas_are_as_before() -> None:
    lines = []
    for component in (OctogenComponent, OctogenLinkedDatasetsComponent):
        schema = component.get_model_cls().model_json_schema()
        parts = {component.__name__: schema, **schema["$defs"]}
        for name, part in sorted(parts.items()):
            if name.endswith(("Settings", "Fields", "Facet", "Component")):  # not Dagster's own
                lines += [f"{name}: required {part.get('required', [])}"]
                lines += [f"  {field}: {rule(each)}" for field, each in part["properties"].items()]
    compare("yaml_schemas.txt", "\n".join([*lines, ""]))


def rule(field: dict[str, Any]) -> str:
    """What a field takes, without the words for people."""
    return json.dumps(
        {key: each for key, each in field.items() if key not in ("title", "description")}
    )


def test_without_a_file_a_mistake_is_told_with_its_field() -> None:
    with pytest.raises(OctogenComponentError) as caught:
        OctogenComponent.from_attributes_dict(attributes={"searches": [{"nam": "boots"}]})
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith("attributes.searches[0].nam: no setting 'nam'. Did you mean 'name'?")


def test_a_missing_extra_is_told(
    mistakes: Callable[[str, str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = importlib.metadata.distribution

    def distribution(name: str) -> importlib.metadata.Distribution:
        if name == "mcp":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    told = mistakes("project: p\n  principal: user:me@example.com", LINKED)
    assert told.endswith('needs mcp: pip install "octogen-dagster[mcp]"')


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
        "7, searches.0.changes 5 is not of type 'boolean', 'object', 'string'",
        f"8, searches.0.serch {unexpected} ('serch' was unexpected)",
    ]
    assert any("'search'" in line for line in lines if "'serch' is not one of" in line)
