"""The file `.env` of a project, from which Dagster's commands take variables."""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values


def add_variables(path: Path, variables: Mapping[str, str]) -> list[str]:
    """Append the variables that a `.env` does not have; change nothing that it has.

    A new file can be read by its owner only, since such a file has secrets.

    Args:
        path: The file; it may be missing.
        variables: The values by name. They must need no quotes.

    Returns:
        The names that the file has with another value.

    Raises:
        OSError: The file cannot be read or written.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    present = dotenv_values(stream=StringIO(text), interpolate=False)
    if missing := {name: value for name, value in variables.items() if name not in present}:
        lines = "".join(f"{name}={value}\n" for name, value in missing.items())
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(lines if not text or text.endswith("\n") else f"\n{lines}")
    return [name for name in present if present[name] != variables.get(name, present[name])]
