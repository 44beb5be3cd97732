"""A command in a project of `dg` reads the project's `.env` and checks its definitions."""

from __future__ import annotations

from collections.abc import Callable
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
        result = run(project, "history", "--product", "https://northpeak.example/1")
        assert result.exit_code == 1  # there is no history yet
        assert f"{project / 'snapshots'}" in result.stderr

    def test_a_folder_without_a_project_has_its_own(
        self, project: Path, run: Callable[..., Result]
    ) -> None:
        (project / "pyproject.toml").unlink()
        assert run(project, "estimate").exit_code == 0
        result = run(project / "src", "estimate")
        assert (result.exit_code, "No Octogen API key" in result.stderr) == (1, True)
