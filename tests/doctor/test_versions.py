from __future__ import annotations

from pathlib import Path

import dagster
import polars as pl
import pytest

from octogen_dagster.doctor import versions
from octogen_dagster.doctor.versions import check_versions


def test_the_versions_are_named(tmp_path: Path) -> None:
    (finding,) = check_versions(tmp_path)
    assert finding.status == "ok"
    assert f"dagster {dagster.__version__}, polars {pl.__version__}, pyarrow" in finding.message


def test_a_package_that_is_not_installed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "_PACKAGES", ("dagster", "no-such-package", "polars"))
    (finding,) = check_versions(tmp_path)
    assert f" dagster {dagster.__version__}, polars {pl.__version__}." in finding.message


def test_commands_of_the_other_package_are_a_warning(tmp_path: Path) -> None:
    commands = {
        "octogen-bq-subscribe": "from octogen_ai_sdk.bigquery import main",
        "octogen-bq-autosubscribe": "from octogen_dagster.cli.bigquery import autosubscribe",
    }
    for name, program in commands.items():
        (tmp_path / name).write_text(program)
    _, finding = check_versions(tmp_path)
    assert finding.status == "warning"
    assert finding.message.startswith("octogen-bq-subscribe start the commands of octogen-ai-sdk")
    assert "octogen-bq-autosubscribe" not in finding.message
