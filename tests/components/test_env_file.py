from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from octogen_dagster.components.env_file import add_variables


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_a_new_file_is_for_its_owner_only(path: Path) -> None:
    umask = os.umask(0o022)
    try:
        assert add_variables(path, {"A": "1", "B": "two"}) == []
    finally:
        os.umask(umask)
    assert path.read_text() == "A=1\nB=two\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_missing_variables_are_appended(path: Path) -> None:
    path.write_text("# mine\nexport A='1 # 2'\nC=${A}")
    assert add_variables(path, {"A": "1 # 2", "B": "2"}) == []
    assert path.read_text() == "# mine\nexport A='1 # 2'\nC=${A}\nB=2\n"
    assert add_variables(path, {"A": "1 # 2", "B": "2"}) == []
    assert path.read_text() == "# mine\nexport A='1 # 2'\nC=${A}\nB=2\n"


def test_a_variable_with_another_value_is_kept_and_named(path: Path) -> None:
    path.write_text("A=mine\n")
    assert add_variables(path, {"A": "1", "B": "2"}) == ["A"]
    assert path.read_text() == "A=mine\nB=2\n"


def test_without_variables_no_file_is_made(path: Path) -> None:
    assert add_variables(path, {}) == []
    assert not path.exists()


def test_an_empty_file_gets_no_empty_line(path: Path) -> None:
    path.touch()
    add_variables(path, {"A": "1"})
    assert path.read_text() == "A=1\n"
