from __future__ import annotations

import warnings

import httpx
import pytest

from octogen_dagster.api import credentials
from octogen_dagster.api.credentials import DEFAULT_BASE_URL, ApiKey, checked_base_url
from octogen_dagster.errors import MissingAPIKeyError
from tests.api.servers import KEY


def bearer(key: ApiKey) -> str:
    """The header that the key adds to a request."""
    request = httpx.Request("GET", "https://api.octogen.ai/v1")
    return key(request).headers["Authorization"]


class TestSources:
    @pytest.mark.parametrize(
        ("argument", "octo", "platform", "used"),
        [
            ("argument", "octo", "platform", "argument"),
            (None, "same", "same", "same"),
            ("", "same", "same", "same"),
            ("  ", "same", "same", "same"),
            (None, "octo", None, "octo"),
            (None, "octo", "", "octo"),
            (None, "octo\n", " ", "octo"),
            (None, None, "platform", "platform"),
            (None, " ", "platform", "platform"),
            (" argument\n", None, None, "argument"),
        ],
    )
    def test_the_argument_comes_first_then_the_environment(
        self,
        monkeypatch: pytest.MonkeyPatch,
        argument: str | None,
        octo: str | None,
        platform: str | None,
        used: str,
    ) -> None:
        for name, value in (("OCTO_API_KEY", octo), ("OCTOGEN_PLATFORM_API_KEY", platform)):
            if value is not None:
                monkeypatch.setenv(name, value)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert bearer(ApiKey(argument)) == f"Bearer {used}"

    def test_of_two_keys_the_platform_key_counts_and_one_warning_is_given(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OCTO_API_KEY", f"{KEY}-old")
        monkeypatch.setenv("OCTOGEN_PLATFORM_API_KEY", f"{KEY}-new")
        credentials._warn_of_two_keys.cache_clear()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert [bearer(ApiKey()) for _ in range(2)] == [f"Bearer {KEY}-new"] * 2
        (warning,) = caught
        assert str(warning.message) == (
            "OCTOGEN_PLATFORM_API_KEY and OCTO_API_KEY hold different Octogen API keys, and "
            "OCTOGEN_PLATFORM_API_KEY is used: unset one of them."
        )

    @pytest.mark.parametrize("argument", [None, "", " \n"])
    def test_the_error_of_a_missing_key_says_what_to_do(self, argument: str | None) -> None:
        with pytest.raises(MissingAPIKeyError) as caught:
            ApiKey(argument)
        for part in ("OCTO_API_KEY", "OCTOGEN_PLATFORM_API_KEY", "octogen-dagster sandbox"):
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
