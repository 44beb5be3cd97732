"""Tests of the commands under the names that octogen-ai-sdk has too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from octogen_dagster.cli import shared_names

NAMES = {
    "octogen-bq-subscribe": (shared_names.subscribe, "bq subscribe"),
    "octogen-bq-autosubscribe": (shared_names.autosubscribe, "bq autosubscribe"),
    "octogen-mcp-login": (shared_names.login, "login"),
}


def help_of(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit, match="0"):
        NAMES[script][0]()


def install_sdk(folder: Path, monkeypatch: pytest.MonkeyPatch, scripts: list[str]) -> None:
    """Put a distribution octogen-ai-sdk with these scripts before all others on the path."""
    info = folder / "octogen_ai_sdk-99.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: octogen-ai-sdk\nVersion: 99\n")
    lines = [f"{script} = octogen_ai_sdk.cli:main" for script in scripts]
    (info / "entry_points.txt").write_text("\n".join(["[console_scripts]", *lines]))
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize("script", NAMES)
def test_a_name_that_another_package_has_too_is_a_warning(
    script: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install_sdk(tmp_path, monkeypatch, [script])
    help_of(script, monkeypatch)
    printed = capsys.readouterr()
    assert printed.out.startswith(f"Usage: {script} [OPTIONS]")
    assert printed.err == (
        f"octogen-ai-sdk has a command {script} too. The package that was installed last has the "
        f"name, which is octogen-dagster now. Use `octogen-dagster {NAMES[script][1]}` instead.\n"
    )


@pytest.mark.parametrize("script", NAMES)
def test_a_name_that_no_other_package_has_is_no_warning(
    script: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install_sdk(tmp_path, monkeypatch, ["octogen-url-lists"])
    help_of(script, monkeypatch)
    assert capsys.readouterr().err == ""


def test_without_the_other_package_there_is_no_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shared_names, "_NAMESAKE", "no-such-package")
    help_of("octogen-mcp-login", monkeypatch)
    assert capsys.readouterr().err == ""
