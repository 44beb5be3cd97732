"""The wheel of this package, and a project that `create-dagster` made, as a new user has them."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parent.parent
# The newest create-dagster may pin packages of a release that is not complete in the index yet.
CREATE_DAGSTER = f"create-dagster=={importlib.metadata.version('dagster')}"


def build_wheel(folder: Path) -> Path:
    """Build the wheel into a folder, which processes may share, and return its path."""
    with FileLock(folder / "wheel.lock"):
        if not (built := list(folder.glob("*.whl"))):
            _run(("uv", "build", "-q", "--wheel", "--out-dir", str(folder), str(ROOT)), folder, {})
            # uv would take the wheel of an earlier test from its cache: the version is the same.
            _run(("uv", "cache", "clean", "-q", "--force", "octogen-dagster"), folder, {})
            built = list(folder.glob("*.whl"))
    return built[0]


@dataclass(frozen=True)
class DgProject:
    """A project of a user.

    Args:
        root: Its folder.
        home: The folder that is its DAGSTER_HOME; None for that of its `.env`.
    """

    root: Path
    home: Path | None = None

    @classmethod
    def create(cls, folder: Path, name: str = "my_project") -> DgProject:
        """Make a project in a folder, as `uvx create-dagster project` does."""
        home = folder / "dagster_home"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\nnux: {enabled: false}\n")
        project = cls(folder / name, home)
        _run(
            ("uvx", "--from", CREATE_DAGSTER, "create-dagster", "project", name, "--no-uv-sync"),
            folder,
            project._environment,
        )
        # Its template still allows Python 3.10: step 1 of docs/tutorial.md.
        pyproject = project.root / "pyproject.toml"
        pyproject.write_text(pyproject.read_text().replace('">=3.10,', '">=3.11,'))
        return project

    def run(self, *command: str, succeeds: bool = True, **environment: str) -> str:
        """Run a command in the project.

        Args:
            command: Its words, such as `uv`, `run`, `dg`, `list`, `defs`.
            succeeds: False if it must fail.
            environment: Variables that it has besides those of the tests.

        Returns:
            What it printed, on both outputs.
        """
        return _run(command, self.root, {**self._environment, **environment}, succeeds=succeeds)

    def running(self, *command: str) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
        """Run a command in the project until the block ends."""
        return _running(command, self.root, self._environment)

    @property
    def _environment(self) -> dict[str, str]:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        home = {"DAGSTER_HOME": str(self.home)} if self.home else {}
        return home | {"DAGSTER_DISABLE_TELEMETRY": "yes", "UV_PYTHON": version, "COLUMNS": "200"}


@contextlib.contextmanager
def _running(
    command: tuple[str, ...], folder: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    # The tests run in an environment of their own, which the user's project must not find.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "DAGSTER_HOME")
    }
    with subprocess.Popen(
        command,
        cwd=folder,
        env={**inherited, **environment},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            # A test that runs out of time must not leave a sandbox on the port of the next one.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _run(
    command: tuple[str, ...], folder: Path, environment: dict[str, str], *, succeeds: bool = True
) -> str:
    with _running(command, folder, environment) as process:
        printed, _ = process.communicate()
    assert (process.returncode == 0) is succeeds, f"{' '.join(command)}:\n{printed}"
    return printed
