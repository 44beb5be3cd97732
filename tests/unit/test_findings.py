"""Checks run side by side, each bounded in time and apart from the failures of the others."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from octogen_dagster.doctor.findings import Finding, run_checks
from octogen_dagster.errors import OctogenMCPError

SECRET = "secret-0123456789"
FINE = Finding("Fine", "ok", "it works.")


def fine() -> Generator[Finding, None, None]:
    yield FINE


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OctogenMCPError("The login is refused. Log in again."), "The login is refused. Log in"),
        (ValueError("base_dir must not be empty."), "base_dir must not be empty."),
        (RuntimeError(f"token {SECRET}"), "the check itself failed with a RuntimeError."),
    ],
)
def test_a_check_that_fails_keeps_what_it_found_and_stops_no_other(
    error: Exception, message: str
) -> None:
    def fail() -> Generator[Finding, None, None]:
        yield FINE
        raise error

    first, failed, last = run_checks({"Broken": fail, "Fine": fine}, 30)
    assert (first, last) == (FINE, FINE)
    assert (failed.subject, failed.status) == ("Broken", "failed")
    assert failed.message.startswith(message)
    assert SECRET not in str(failed)


def test_a_check_that_hangs_is_left_and_stops_no_other() -> None:
    released = threading.Event()

    def hang() -> Generator[Finding, None, None]:
        yield FINE
        released.wait(30)

    try:
        first, hung, last = run_checks({"Hangs": hang, "Fine": fine}, 0.05)
    finally:
        released.set()
    assert (first, last) == (FINE, FINE)
    assert hung.message == "the check did not end within 0.05 s."
    assert "longer timeout" in hung.advice


def test_a_check_whose_time_is_over_takes_no_further_step() -> None:
    released, ended = threading.Event(), threading.Event()
    steps: list[int] = []

    def hang() -> Generator[Finding, None, None]:
        try:
            released.wait(30)
            yield FINE
            steps.append(2)
        finally:
            ended.set()

    run_checks({"Hangs": hang}, 0.05)
    released.set()
    assert ended.wait(30)
    assert not steps
