"""The check of the installed versions and of the names of the commands."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import sysconfig
from pathlib import Path

from octogen_dagster.doctor.findings import Check, Finding

_PACKAGES = ("octogen-dagster", "dagster", "polars", "pyarrow")
_OTHER_PACKAGE = "octogen-ai-sdk"
_SHARED_COMMANDS = ("octogen-bq-subscribe", "octogen-bq-autosubscribe", "octogen-mcp-login")


def check_versions(scripts: Path | None = None) -> Check:
    """Report the versions, and commands that belong to the package octogen-ai-sdk.

    Args:
        scripts: The folder of the commands; by default that of this Python.
    """
    installed = {name: _version(name) for name in _PACKAGES}
    versions = [f"{name} {version}" for name, version in installed.items() if version]
    python = f"Python {platform.python_version()}"
    yield Finding("Versions", "ok", f"{', '.join([python, *versions])}.")
    folder = scripts or Path(sysconfig.get_path("scripts"))
    taken = [name for name in _SHARED_COMMANDS if _is_of_other_package(folder / name)]
    if taken:
        yield Finding(
            "Commands",
            "warning",
            f"{', '.join(taken)} start the commands of {_OTHER_PACKAGE}, which was installed later "
            "and has the same names.",
            "Use `octogen-dagster` with its subcommands, or install the two packages apart.",
        )


def _version(package: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _is_of_other_package(script: Path) -> bool:
    module = _OTHER_PACKAGE.replace("-", "_")
    try:
        return module in script.read_text()
    except (OSError, UnicodeDecodeError):  # not installed, or a program of another kind
        return False
