"""Finds a secret in an error that the code under test has raised."""

from __future__ import annotations

from tests.api.leaks import leaks as all_leaks


def leaks(error: BaseException, secret: str) -> list[str]:
    """The places where the secret can be read, but for the tests that made it up."""
    return [place for place in all_leaks(error, secret) if " in test_" not in place]
