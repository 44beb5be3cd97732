"""The extras of the package: a feature whose packages are missing says what to install.

It says so when it is built or configured, so that definitions do not load and no run fails later.
"""

from __future__ import annotations

import importlib.metadata
import re

from octogen_dagster.errors import MissingPackageError

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*;.*\bextra == ['\"](?P<extra>\w+)['\"]")


def require_extras(subject: str, *extras: str) -> None:
    """Check that the packages of extras are installed.

    Args:
        subject: What needs them; begins the error's message.
        extras: The names of the extras, as in pyproject.toml.

    Raises:
        MissingPackageError: A package is not installed.
    """
    missing = {extra: _missing_packages(extra) for extra in extras}
    if names := [name for packages in missing.values() for name in packages]:
        wanted = ",".join(extra for extra, packages in missing.items() if packages)
        raise MissingPackageError(
            f'{subject} needs {", ".join(names)}: pip install "octogen-dagster[{wanted}]"'
        )


def _missing_packages(extra: str) -> list[str]:
    lines = importlib.metadata.requires("octogen-dagster") or ()
    requirements = [found for line in lines if (found := _REQUIREMENT.match(line))]
    packages = [found["name"] for found in requirements if found["extra"] == extra]
    return [name for name in packages if not _is_installed(name)]


def _is_installed(package: str) -> bool:
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
