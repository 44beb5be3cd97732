from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner, Result

from octogen_dagster.cli.errors import fail, reporting_errors
from octogen_dagster.errors import (
    OctogenBigQueryAccessPendingError,
    OctogenBigQueryError,
    OctogenBigQueryInputError,
    OctogenMCPError,
)


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    logger = logging.getLogger("mcp")
    before = logger.level
    yield
    logger.setLevel(before)


def run_raising(error: BaseException | None) -> Result:
    @click.command()
    @reporting_errors
    def command() -> None:
        if error is not None:
            raise error
        click.echo("done")

    return CliRunner().invoke(command)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OctogenMCPError("no result."), 1, "Error: no result.\n"),
        (OctogenBigQueryError("no dataset."), 1, "Error: no dataset.\n"),
        (OctogenBigQueryInputError("no name."), 2, "Error: no name.\n"),
        (OctogenBigQueryAccessPendingError("no grant."), 3, "Not yet: no grant.\n"),
    ],
)
def test_an_expected_error_is_one_line_and_a_status(
    error: Exception, status: int, message: str
) -> None:
    done = run_raising(error)
    assert (done.exit_code, done.stdout, done.stderr) == (status, "", message)


def test_a_defect_keeps_its_traceback() -> None:
    defect = TypeError("a defect")
    assert run_raising(defect).exception is defect


def test_a_command_that_succeeds_has_status_0() -> None:
    done = run_raising(None)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "done\n", "")


def test_sigterm_exits_the_command_and_is_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)

    @click.command()
    @reporting_errors
    def command() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        click.echo("not reached")

    done = CliRunner().invoke(command)
    assert (done.exit_code, done.stdout) == (128 + signal.SIGTERM, "")
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_package_mcp_does_not_log_what_the_error_says() -> None:
    run_raising(None)
    assert not logging.getLogger("mcp.client").isEnabledFor(logging.ERROR)


def test_fail_prints_to_stderr_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fail("Error: it.", 7)
    assert caught.value.code == 7
    assert capsys.readouterr() == ("", "Error: it.\n")
