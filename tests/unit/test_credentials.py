from __future__ import annotations

import warnings

import httpx
import pytest

from octogen_dagster.api import credentials
from octogen_dagster.api.credentials import (
    API_KEY_VARIABLES,
    DEFAULT_BASE_URL,
    ApiKey,
    checked_base_url,
)
from octogen_dagster.errors import MissingAPIKeyError
from tests.api.servers import KEY


def bearer(key: ApiKey) -> str:
    """The header that the key adds to a request."""
    request = httpx.Request("GET", "https://api.octogen.ai/v1")
    return key(request).headers["Authorization"]


class TestSources:
    @pytest.mark.parametrize(
        ("argument", "storerouter", "platform", "octo", "used"),
        [
            ("argument", "new", "platform", "octo", "argument"),
            (" argument\n", None, None, None, "argument"),
            (None, "same", "same", "same", "same"),
            ("  ", "same", None, "same", "same"),
            ("", " ", None, "octo\n", "octo"),
            (None, None, "", "octo", "octo"),
            (None, None, "platform", " ", "platform"),
            (None, "", "platform", None, "platform"),
            (None, "new", None, None, "new"),
        ],
    )
    def test_the_argument_comes_first_then_the_environment(
        self,
        monkeypatch: pytest.MonkeyPatch,
        argument: str | None,
        storerouter: str | None,
        platform: str | None,
        octo: str | None,
        used: str,
    ) -> None:
        for name, value in zip(API_KEY_VARIABLES, (storerouter, platform, octo), strict=True):
            if value is not None:
                monkeypatch.setenv(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert bearer(ApiKey(argument)) == f"Bearer {used}"

    @pytest.mark.parametrize(("used", "ignored"), [(0, 1), (0, 2), (1, 2)])
    def test_of_two_keys_the_newer_variable_counts_and_one_warning_is_given(
        self, monkeypatch: pytest.MonkeyPatch, used: int, ignored: int
    ) -> None:
        monkeypatch.setenv(API_KEY_VARIABLES[ignored], f"{KEY}-old")
        monkeypatch.setenv(API_KEY_VARIABLES[used], f"{KEY}-new")
        credentials._warn_of_two_keys.cache_clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert [bearer(ApiKey()) for _ in range(2)] == [f"Bearer {KEY}-new"] * 2
        (warning,) = caught
        text = str(warning.message)
        assert f"{API_KEY_VARIABLES[used]} takes precedence" in text
        assert API_KEY_VARIABLES[ignored] in text
        assert KEY not in text

    @pytest.mark.parametrize("argument", [None, "", " \n"])
    def test_the_error_of_a_missing_key_says_what_to_do(self, argument: str | None) -> None:
        with pytest.raises(MissingAPIKeyError) as caught:
            ApiKey(argument)
        for part in (*API_KEY_VARIABLES, "octogen-dagster sandbox"):
            assert part in str(caught.value)


class TestBaseUrl:
    @pytest.mark.parametrize(
        ("base_url", "checked"),
        [
            (DEFAULT_BASE_URL, DEFAULT_BASE_URL),
            ("https://api.octogen.ai/v1/", "https://api.octogen.ai/v1"),
            ("https://api.octogen.ai", "https://api.octogen.ai"),
            ("HTTPS://API.OCTOGEN.AI/v1", "https://api.octogen.ai/v1"),
            ("https://proxy.example:8443/octogen/v1", "https://proxy.example:8443/octogen/v1"),
            ("http://127.0.0.1:8787/v1", "http://127.0.0.1:8787/v1"),
            ("http://127.9.9.9/v1", "http://127.9.9.9/v1"),
            ("http://localhost:8787/v1", "http://localhost:8787/v1"),
            ("http://[::1]:8787/v1", "http://[::1]:8787/v1"),
        ],
    )
    def test_a_valid_one_loses_its_trailing_slash(self, base_url: str, checked: str) -> None:
        assert checked_base_url(base_url) == checked
