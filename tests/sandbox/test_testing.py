"""The public fixture in a test suite of a user."""

import pytest

pytest_plugins = ["pytester"]

_SOMEBODY_ELSES_TEST = """
import os
import httpx

pytest_plugins = ["octogen_dagster.sandbox.testing"]


def test_pipeline(octogen_sandbox):
    assert os.environ["OCTOGEN_PLATFORM_API_KEY"] == os.environ["OCTO_API_KEY"]
    counts = []
    for host in os.environ["OCTOGEN_SHOPS"].split(","):
        response = httpx.get(
            os.environ["OCTOGEN_BASE_URL"] + "/domains/" + host,
            headers={"Authorization": "Bearer " + os.environ["OCTO_API_KEY"]},
        )
        counts += [entry["productCount"] for entry in response.json()["catalogs"]]
    assert counts == [40, 40, 40]
    assert len(octogen_sandbox.requests) == 3


def test_each_test_has_its_own(octogen_sandbox):
    assert octogen_sandbox.requests == []


def test_the_environment_is_restored():
    assert os.environ["OCTOGEN_PLATFORM_API_KEY"] == "a real one"
    assert "OCTOGEN_BASE_URL" not in os.environ
    assert "OCTOGEN_SHOPS" not in os.environ
"""


@pytest.mark.slow
def test_the_fixture_serves_and_cleans_up(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", "a real one")
    monkeypatch.delenv("OCTOGEN_BASE_URL", raising=False)
    monkeypatch.delenv("OCTOGEN_SHOPS", raising=False)
    pytester.makepyfile(_SOMEBODY_ELSES_TEST)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)
