"""Dagster instances that read the migrations of their storage once in a process."""

import functools

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory


def read_migrations_once(patch: pytest.MonkeyPatch) -> None:
    """Keep Alembic from importing all migrations for each new storage, which takes most of it."""
    read = ScriptDirectory.from_config

    @functools.cache
    def from_config(config: Config) -> ScriptDirectory:
        return read(config)

    patch.setattr(ScriptDirectory, "from_config", from_config)
