"""A command in a project of `dg` reads the project's `.env` and checks its definitions."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.main import main
from octogen_dagster.sandbox.server import Sandbox

PYPROJECT = """\
[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "my_shops"
"""
DG = 'directory_type = "project"\n[project]\nroot_module = "my_shops"\n'


@pytest.fixture
def project(tmp_path: Path, shops: Sandbox) -> Path:
    """A project whose `.env` names a sandbox."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    lines = [f"{name}={value}" for name, value in shops.environment.items()]
    (tmp_path / ".env").write_text("\n".join(["# local", *lines]))
    (tmp_path / "src" / "my_shops").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command in a folder."""

    def run(folder: Path, *arguments: str) -> Result:
        monkeypatch.chdir(folder)
        return CliRunner().invoke(main, arguments)

    return run


class TestEnvironment:
    """The `.env` of the project holds for commands as it does for `dg`."""

    @pytest.mark.parametrize("below", ["", "src/my_shops"])
    def test_of_the_project(self, project: Path, run: Callable[..., Result], below: str) -> None:
        result = run(project / below, "estimate", "--catalog", "northpeak")
        assert result.exit_code == 0, result.output
        assert "northpeak       230" in result.stdout

    def test_a_project_may_have_a_dg_toml(self, project: Path, run: Callable[..., Result]) -> None:
        (project / "pyproject.toml").unlink()
        (project / "dg.toml").write_text(DG)
        assert run(project / "src", "estimate").exit_code == 0

    def test_it_wins_over_what_was_exported(
        self, project: Path, run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OCTOGEN_BASE_URL", "http://127.0.0.1:1/v1")
        assert run(project, "estimate").exit_code == 0

    def test_options_of_the_command_take_it(
        self, project: Path, run: Callable[..., Result]
    ) -> None:
        with (project / ".env").open("a") as file:
            file.write(f"\nOCTOGEN_SNAPSHOTS={project / 'snapshots'}\n")
        result = run(project, "sql")
        assert result.exit_code == 1  # nothing is stored yet
        assert f"{project / 'snapshots'}" in result.stderr

    def test_a_folder_without_a_project_has_its_own(
        self, project: Path, run: Callable[..., Result]
    ) -> None:
        (project / "pyproject.toml").unlink()
        assert run(project, "estimate").exit_code == 0
        result = run(project / "src", "estimate")
        assert (result.exit_code, "No Octogen API key" in result.stderr) == (1, True)

    @pytest.mark.parametrize("command", [["doctor", "--help"], ["bq", "subscribe", "--help"]])
    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("pyproject.toml", b"[tool.dg\n", "is not valid TOML: "),
            ("pyproject.toml", b"# caf\xe9\n", "is not valid UTF-8."),
            ("pyproject.toml", b"tool = 3\n", "does not set project.root_module"),
            ("pyproject.toml", b"a = " + b"[" * 100_000, "cannot be read: "),
            ("dg.toml", b'directory_type = "project"\n', "does not set project.root_module"),
            ("dg.toml", None, "cannot be read: Input/output error."),
            (".env", b"NAME=caf\xe9\n", "is not valid UTF-8. Its variables are not set"),
            (".env", b"A=b\nB=b\0c\n", "cannot be read: the variable 'B'"),
            (".env", b"'A=B'=c\n", "cannot be read: the variable 'A=B'"),
            (".env", None, "cannot be read: Input/output error."),
        ],
    )
    def test_a_broken_file_is_a_line(
        self,
        tmp_path: Path,
        run: Callable[..., Result],
        command: list[str],
        name: str,
        content: bytes | None,
        said: str,
    ) -> None:
        below = tmp_path if name == ".env" else tmp_path / "below"
        below.mkdir(exist_ok=True)
        if content is None:
            (tmp_path / name).symlink_to("/proc/self/mem")  # nobody can read its beginning
        else:
            (tmp_path / name).write_bytes(content)
        result = run(below, *command)
        assert (result.exit_code, "Usage: " in result.stdout) == (0, True), result.exception
        assert result.stderr.startswith(f"Warning: {tmp_path / name} {said}")
        assert result.stderr.count("\n") == 1


DEFINITIONS = """\
from pathlib import Path

import dagster as dg


@dg.definitions
def defs() -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
IN_PYTHON = """\
import dagster as dg
from octogen_dagster import OctogenResource, ParquetSnapshotIOManager, ShopCatalogs

shops = ShopCatalogs(hosts=["{host}"])
defs = dg.Definitions(
    resources={{
        "octogen": OctogenResource(catalog_source=shops, budget_usd=5),
        "io_manager": ParquetSnapshotIOManager(base_dir=dg.EnvVar("MY_SNAPSHOTS")),
    }}
)
"""
IN_YAML = """\
type: octogen_dagster.components.OctogenComponent
attributes:
  name: {name}
  connection: {{api_key: "{{{{ env.OCTOGEN_PLATFORM_API_KEY }}}}", budget_usd: {budget}}}
  catalog_source: {{hosts: ["{host}"]}}
  storage: {{base_dir: {name}_snapshots}}
"""


class TestDefinitions:
    """The doctor checks the resources of the project's definitions."""

    @pytest.fixture(autouse=True)
    def _module(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Import the definitions of each test anew."""
        monkeypatch.setattr(sys, "path", [*sys.path])
        yield
        for name in [name for name in sys.modules if name.split(".")[0] == "my_shops"]:
            del sys.modules[name]

    @pytest.fixture
    def shops(self) -> Iterator[Sandbox]:
        """A sandbox of today, which lists catalogs by their shops."""
        with Sandbox(catalogs={"northpeak": 230, "strada": 120}) as running:
            yield running

    @pytest.fixture
    def package(self, project: Path) -> Path:
        """The package of the project."""
        package = project / "src" / "my_shops"
        (package / "__init__.py").touch()
        return package

    def test_in_python(
        self, project: Path, package: Path, shops: Sandbox, run: Callable[..., Result]
    ) -> None:
        (package / "definitions.py").write_text(IN_PYTHON.format(host=shops.hosts[0]))
        with (project / ".env").open("a") as file:
            file.write(f"\nMY_SNAPSHOTS={project / 'mine'}\n")
        result = run(package, "doctor")
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert (
            "ok       Project: my_shops.definitions has the resources octogen and io_manager."
            in lines
        )
        assert "ok       Octogen catalogs: ShopCatalogs lists 1 catalog with 230 products." in lines
        assert f" {project / 'mine'}." in result.stdout
        assert "budget per run: $5.00" in result.stdout

    @pytest.mark.parametrize(
        ("line", "told"), [("", True), ("DAGSTER_HOME=/home/me/dagster", False)]
    )
    def test_warns_if_dagster_has_no_home(
        self,
        project: Path,
        package: Path,
        shops: Sandbox,
        run: Callable[..., Result],
        monkeypatch: pytest.MonkeyPatch,
        line: str,
        told: bool,
    ) -> None:
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        (package / "definitions.py").write_text(IN_PYTHON.format(host=shops.hosts[0]))
        with (project / ".env").open("a") as file:
            file.write(f"\nMY_SNAPSHOTS={project / 'mine'}\n{line}\n")
        result = run(package, "doctor", "--json")
        assert result.exit_code == 0, result.output
        found = [
            each
            for each in json.loads(result.stdout)["findings"]
            if "DAGSTER_HOME" in each["message"]
        ]
        assert [each["status"] for each in found] == (["warning"] if told else [])

    def test_in_yaml_with_several_components(
        self, project: Path, package: Path, shops: Sandbox, run: Callable[..., Result]
    ) -> None:
        (package / "definitions.py").write_text(DEFINITIONS)
        for name, budget, host in (("one", 5, shops.hosts[0]), ("other", 7, "gone.example")):
            (package / "defs" / name).mkdir(parents=True)
            yaml = IN_YAML.format(name=name, budget=budget, host=host)
            (package / "defs" / name / "defs.yaml").write_text(yaml)
        result = run(project / "src", "doctor")
        assert result.exit_code == 1
        said = {line[9:].partition(":")[0]: line[:7].strip() for line in result.stdout.splitlines()}
        assert said["Octogen catalogs (one)"] == "ok"
        assert said["Octogen catalogs (other)"] == "failed"
        assert said["Snapshots (one_io_manager)"] == "ok"
        assert " other_snapshots." in result.stdout
        assert "budget per run: $5.00" in result.stdout
        assert "budget per run: $7.00" in result.stdout
        assert not list(project.glob("*snapshots"))

    def test_an_option_is_checked_in_place_of_the_definitions(
        self, project: Path, package: Path, shops: Sandbox, run: Callable[..., Result]
    ) -> None:
        (package / "definitions.py").write_text(IN_PYTHON.format(host="gone.example"))
        result = run(project, "doctor", "--host", shops.hosts[1], "--base-dir", "other")
        assert result.exit_code == 0, result.output
        assert "ShopCatalogs lists 1 catalog with 120 products." in result.stdout
        assert f" {project / 'other'}." in result.stdout

    def test_questions_go_to_the_service_of_the_definitions(
        self, project: Path, package: Path, shops: Sandbox, run: Callable[..., Result]
    ) -> None:
        with Sandbox(catalogs={"kumo": 20}) as other:
            definitions = IN_PYTHON.format(host="gone.example")
            named = f"OctogenResource(base_url={other.base_url!r}, "
            (package / "definitions.py").write_text(definitions.replace("OctogenResource(", named))
            result = run(project, "doctor", "--ask", "--yes", "--host", other.hosts[0])
            assert f"questions to {other.base_url}:" in result.stdout
            assert "ok       unit of the count: 20 rows" in result.stdout
        assert not shops.requests

    def test_definitions_that_do_not_load_are_said_and_the_rest_is_checked(
        self, project: Path, package: Path, shops: Sandbox, run: Callable[..., Result]
    ) -> None:
        (package / "definitions.py").write_text("raise RuntimeError('a secret')")
        result = run(project, "doctor", "--host", shops.hosts[0])
        assert result.exit_code == 1
        (failed,) = [line for line in result.stdout.splitlines() if " Project: " in line]
        assert failed.startswith("failed   Project: my_shops.definitions")
        assert "(RuntimeError)" in failed
        assert "`dg check defs`" in failed
        assert "ok       Octogen catalogs:" in result.stdout
        assert "a secret" not in result.output

    def test_definitions_without_our_resources(
        self, project: Path, package: Path, shops: Sandbox, run: Callable[..., Result]
    ) -> None:
        (package / "definitions.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()")
        result = run(project, "doctor", "--host", shops.hosts[0])
        assert result.exit_code == 0, result.output
        assert "skipped  Project: my_shops.definitions has no" in result.stdout

    def test_outside_of_a_project_options_and_variables_are_checked(
        self, project: Path, shops: Sandbox, run: Callable[..., Result]
    ) -> None:
        (project / "pyproject.toml").unlink()
        result = run(project, "doctor", "--host", shops.hosts[0])
        assert result.exit_code == 0, result.output
        assert "Project:" not in result.stdout


def test_the_doctor_says_the_version_of_libcurl(
    project: Path, shops: Sandbox, run: Callable[..., Result]
) -> None:
    (project / "pyproject.toml").unlink()
    result = run(project, "doctor", "--json")
    versions = json.loads(result.stdout)["findings"][0]
    assert versions["subject"] == "Versions"
    assert re.search(r"pycurl \d+\.\d+.*, libcurl \d+\.\d+\.\d+", versions["message"])
